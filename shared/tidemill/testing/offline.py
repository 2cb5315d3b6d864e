"""The twin of the offline writer: it archives what lies on the topics of events, by the declarations of the moment. Needs the extra `lake`."""

from __future__ import annotations

from tidemill.archive.columns import event_folder
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.testing.lake import MemoryLake
from tidemill.testing.log import MemoryKafka


class Offline:
    """An offline store with the archive of the events on these topics."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._lake = MemoryLake()

    def archived(self, project: Project) -> MemoryLake:
        """The store, once it has all events so far."""
        for event in project.events.values():
            found = self._lake.find(event_folder(event.name))
            table = event_table(project, event, found and found.schema)
            writer, partitions = self._lake.topic_table(table), self._kafka.partitions(event.topic)
            writer.open()
            starts = {number: writer.position(number) for number in range(len(partitions))}
            read = {number: partitions[number].read(start) for number, start in starts.items()}
            moves = {(event.topic, number): (start, start + len(read[number])) for number, start in starts.items()}
            writer.append(table.rows_of(read), moves)
        return self._lake
