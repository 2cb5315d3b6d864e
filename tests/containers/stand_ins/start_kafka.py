"""Starts Kafka as the image apache/kafka does: each KAFKA_A_B of the environment is the property a.b. Stands in for that image's start."""

import os
import subprocess
from pathlib import Path

JAVA = ["/opt/java/bin/java", "-Xmx512m", "-cp", "/opt/kafka/libs/*:/opt/kafka/modules/*"]
FILE = Path("/tmp/server.properties")  # noqa: S108 - of a container of its own


def main() -> None:
    """Writes the properties, formats an empty folder, becomes the broker."""
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in os.environ.items() if name.startswith("KAFKA_")
    }
    FILE.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    format_it = [*JAVA, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", "5L6g3nShT-eMCtK--X86sw", "-c", str(FILE)]
    subprocess.run(format_it, check=True)
    os.execv(JAVA[0], [*JAVA, "kafka.Kafka", str(FILE)])  # noqa: S606


if __name__ == "__main__":
    main()
