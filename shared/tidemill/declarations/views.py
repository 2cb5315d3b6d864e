"""Feature views: which aggregates of an event, for which entity, over which windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType

from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.checks import Declaration, check_partitions, check_plain, duration_ms
from tidemill.declarations.entities import Entity
from tidemill.declarations.events import Event
from tidemill.declarations.expressions import Column, parse_column
from tidemill.declarations.slots import SideKind
from tidemill.declarations.windows import FOREVER, LIFETIME, Grid, Lifetime, Window, sliding
from tidemill.durations import format_ms, parse_ms
from tidemill.errors import DeclarationError
from tidemill.names import LogName, check_name, log_name, version_name

_LADDER_MS = tuple(parse_ms(text) for text in ("5m", "15m", "1h", "6h", "1d"))
_MOST_TILES = 168  # a window has at most this many tiles, unless `tiles` says otherwise: 7 days of 1 h
_SIDE_LIMIT = 8 << 20  # bytes that the lists, sketches and texts of one entity may take: such a value is written whole
_LAST_IDS = 8  # of each entity, beside those that are remembered for a time
_LONGEST_MEMORY = "1d"
_TILES_LIMIT = 10_000  # a window never has more tiles: each is stored for every entity and merged in every request


@dataclass(frozen=True)
class Feature:
    """One value that a view serves: its name within the view, its aggregation and its window."""

    name: str
    aggregation: Aggregation
    window: Window


@dataclass(frozen=True, eq=False)
class FeatureView(Declaration):
    """One event source, one entity, some windowed aggregates.

    `windows`: such as ["1h", "24h", "7d"] or "lifetime". A window is merged from tiles when it is read. It covers all tiles that touch
    (t - window, t], so at least the window, and less than one tile more. `tile`: the finest tile. A longer window has coarser tiles, so no
    window up to half a year needs more than 168: 5 min up to 14 h, 15 min up to 42 h, 1 h up to 7 d, 6 h up to 42 d, then 1 d. `tiles`
    sets others: {"7d": "6h"}. `ttl`: the values of an entity whose newest event is older are served as expired.

    `dedupe`: for how long the id of an event is remembered ("30m"; at least so long by the time of the log, and at most a third
    longer), or how many ids each entity remembers (8), those of its last events in the order of the log. With a duration an
    entity remembers its last 8 ids too, however old. An event whose id is remembered for its entity is a publisher's duplicate and
    skipped. A late event corrects its tile if it lies within the longest window before the entity's newest
    event; an older event becomes a dead letter.

    `ahead`: how far the time of an event may lie ahead of the moment when the event became known. Without `ahead`, the event's `future` is
    the limit, and the event counts at the moment when it became known: it cannot have happened later, so its clock is wrong. With `ahead` ("2h"), the event waits for its time: no window sees it before its tile begins,
    and tiles and horizon reach that much further back, so that it drops nothing that the present needs. An event further ahead becomes a
    dead letter of this view.

    `where`: a condition on the event's fields ("payment == 'Cash'"). Only events for which it is true feed the view.

    `erase`: such a condition too ("deleted"). An event that feeds the view and for which it is true erases its entity: the view forgets all
    that it held of the entity, which is not found until its next event, and the event itself is in no feature. It erases at its place in the
    log, whatever its time. Recent ids stay, so that it erases once.
    """

    name: str
    source: Event
    entity: str | Entity
    features: Sequence[Aggregation]
    _: KW_ONLY
    windows: Sequence[str] = (LIFETIME,)
    where: str | None = None
    erase: str | None = None
    tile: str = "5m"
    tiles: Mapping[str, str] = field(default_factory=dict)
    ttl: str | None = None
    ahead: str | None = None
    dedupe: int | str = "30m"
    partitions: int = 4
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, self.declared_at, "name")
        if not isinstance(self.source, Event):
            self._fail("source", f"{self.source!r} is not an Event", "pass the Event object itself")
        check_partitions(self)
        if isinstance(self.entity, str):
            check_name(self.entity, self.declared_at, "entity")
        entity = Entity(self.entity) if isinstance(self.entity, str) else self.entity
        object.__setattr__(self, "entity", entity)
        if not isinstance(entity, Entity):
            self._fail("entity", f"{entity!r} is not an Entity", "name a field of the event, or pass an Entity")
        for name in entity.fields:
            self._check_key(name)
        if not isinstance(self.features, Sequence) or not self.features:
            self._fail("features", "a view without a list of features serves nothing", "add count(), mean(...) or another aggregate")
        object.__setattr__(self, "last_ids", self._check_dedupe())
        if self.ttl is not None:
            duration_ms(self, "ttl", self.ttl)
        object.__setattr__(self, "condition", self._parse_condition("where", self.where))
        object.__setattr__(self, "erasure", self._parse_condition("erase", self.erase))
        object.__setattr__(self, "columns", self._parse_columns())
        object.__setattr__(self, "served", self._plan_features())
        if not self.served:
            self._fail("windows", "no feature has a window", 'write windows=["1h"], or leave it out for the whole life of an entity')
        if self.ahead is not None:
            self._check_ahead(self.ahead)
        duration_ms(self, "tile", self.tile)
        self._check_sides()
        self._check_case()
        for window in self.tiles:
            if window not in self.windows and not any(window in (aggregation.windows or ()) for aggregation in self.features):
                self._fail("tiles", f"there is no window {window!r}", f"name one of {', '.join(self.windows)}")

    condition: Column | None = field(init=False, repr=False)
    erasure: Column | None = field(init=False, repr=False)
    columns: dict[str, Column] = field(init=False, repr=False)
    served: tuple[Feature, ...] = field(init=False, repr=False)
    last_ids: int = field(init=False, repr=False)
    version: int = field(init=False, repr=False, default=1)
    since: Mapping[str, int] = field(init=False, repr=False, default_factory=dict)

    @property
    def key(self) -> Entity:
        """The entity as an Entity."""
        assert isinstance(self.entity, Entity)
        return self.entity

    @property
    def log(self) -> LogName:
        """The name of the view's log, for its topic, keys, table and stamps. Another version has another log; the two never mix."""
        return log_name(self.plain_name, self.partitions, self.version)

    @property
    def plain_name(self) -> str:
        """The declared name. `name` is the same, or `<plain name>@v<version>` of a version that is not in force."""
        return self.name.partition("@")[0]

    @property
    def in_force(self) -> bool:
        """Whether the plain name means this version."""
        return self.name == self.plain_name

    @property
    def ttl_ms(self) -> int | None:
        """`ttl` in ms."""
        return None if self.ttl is None else parse_ms(self.ttl)

    @property
    def ahead_ms(self) -> int | None:
        """`ahead` in ms."""
        return None if self.ahead is None else parse_ms(self.ahead)

    @property
    def dedupe_ms(self) -> int | None:
        """For how long the ids of events are remembered, in ms; None: only by their number."""
        return parse_ms(self.dedupe) if isinstance(self.dedupe, str) else None

    @property
    def waits(self) -> bool:
        """Whether an event that lies ahead waits for its time."""
        return self.ahead is not None

    def time_of(self, time_ms: int, known_ms: int) -> int:
        """When an event counts, in ms: at its time, but where events do not wait, not after the moment when it became known."""
        return time_ms if self.waits else min(time_ms, known_ms)

    @property
    def value_fields(self) -> tuple[str, ...]:
        """The fields of the event that the view folds, those of `erase` included, in a fixed order."""
        columns = [*self.columns.values(), *([self.erasure] if self.erasure else [])]
        return tuple(sorted({name for column in columns for name in column.fields}))

    @property
    def read_fields(self) -> list[str]:
        """The fields of the event that its record is made from: the key, those that the view folds, and those of `where`, each once."""
        return list(dict.fromkeys((*self.key.fields, *self.value_fields, *(self.condition.fields if self.condition else ()))))

    def since_ms(self, feature: Feature) -> int:
        """The moment from which on events have all fields of a feature, the key, `where` and `erase` included, epoch ms; 0: always, as far as
        anybody knows."""
        column = None if feature.aggregation.column is None else self.columns[feature.aggregation.column]
        names = [name for read in (self.condition, self.erasure, column) if read is not None for name in read.fields]
        return max(self.since.get(name, 0) for name in (*self.key.fields, *names))

    def as_version(self, version: int, *, in_force: bool, since: Mapping[str, int] = MappingProxyType({})) -> FeatureView:
        """The same view as a version of itself. One that is not in force has its version in its name.

        `since`: fields of the event that nothing before a moment has (epoch ms). A feature that reads one has no value in a window that
        begins earlier: what it would be is not known.
        """
        made = object.__new__(FeatureView)  # all that depends on its arguments is checked and computed already
        name = self.plain_name if in_force else version_name(self.plain_name, version)
        made.__dict__.update(self.__dict__ | {"name": name, "version": version, "since": since})
        return made

    def over_places(self) -> FeatureView:
        """The same view over columns in which each text is its place in a list (see `Aggregation.over_places`)."""
        made = object.__new__(FeatureView)
        served = tuple(dataclasses.replace(feature, aggregation=feature.aggregation.over_places()) for feature in self.served)
        made.__dict__.update(self.__dict__ | {"served": served})
        return made

    def select(self, *names: str) -> Selection:
        """Some of the view's features, as the input of a model."""
        return Selection(self, tuple(names))

    def _check_sides(self) -> None:
        most = 0
        for grid in {feature.window.grid for feature in self.served}:
            features = [feature for feature in self.served if feature.window.grid == grid]
            slots = {slot for feature in features for slot in feature.aggregation.slots}
            tiles = 1 + grid.tiles(max(feature.window.reach_ms for feature in features) + (self.ahead_ms or 0))
            most += tiles * sum(slot.kind.most_bytes for slot in slots if isinstance(slot.kind, SideKind))
        if most > _SIDE_LIMIT:
            message = f"lists, sketches and texts of one entity could take {most / 2**20:.0f} MiB, more than {_SIDE_LIMIT >> 20}"
            self._fail("features", message, "choose longer tiles, fewer windows or shorter lists")

    def _check_dedupe(self) -> int:
        if not isinstance(self.dedupe, int | str) or isinstance(self.dedupe, bool):
            self._fail("dedupe", f"dedupe is {self.dedupe!r}", 'give a duration such as "30m", or a number of ids')
        if isinstance(self.dedupe, int):
            if not 0 <= self.dedupe <= 255:
                self._fail("dedupe", f"{self.dedupe} is out of range", 'keep between 0 and 255 ids, or give a duration such as "30m"')
            return self.dedupe
        if duration_ms(self, "dedupe", self.dedupe) > parse_ms(_LONGEST_MEMORY):
            mend = "a worker holds the ids of all events of that time in memory: choose a shorter one"
            self._fail("dedupe", f"{self.dedupe} is longer than {_LONGEST_MEMORY}", mend)
        return _LAST_IDS

    def _check_case(self) -> None:
        if len({name.casefold() for name in self.value_fields}) < len(self.value_fields):
            names = ", ".join(self.value_fields)
            self._fail("features", f"fields differ only in case: {names}", "fold one of them: a table has one column for both")

    def _check_key(self, name: str) -> None:
        if name not in self.source.fields:
            self._fail("entity", f"event {self.source.name!r} has no field {name!r}", f"name one of {', '.join(self.source.fields)}")
        if self.source.base_type(name) not in (str, int):
            self._fail("entity", f"field {name!r} must be str or int to be a key", "change the field's type or choose another")

    def _check_ahead(self, ahead: str) -> None:
        ahead_ms = duration_ms(self, "ahead", ahead)
        if ahead_ms > self.source.future_ms:
            self._fail("ahead", f"{ahead} is further than {self.source.future}, beyond which no event passes", "raise future= of the event")
        for feature in self.served:
            window = feature.window
            if not window.bounded:
                mend = "give the feature a window, or declare it in a view without ahead="
                self._fail("ahead", f"{feature.name!r} is of the entity's whole life, in which no event can wait", mend)
            if window.grid.tiles(window.reach_ms + ahead_ms) > _TILES_LIMIT:
                tiles = f"{_TILES_LIMIT} tiles of {format_ms(window.grid.tile_ms)}"
                self._fail("ahead", f"{ahead} and the window of {feature.name!r} have more than {tiles}", "choose longer tiles")

    def _parse_condition(self, argument: str, text: str | None) -> Column | None:
        if text is None:
            return None
        try:
            condition = parse_column(text, self.source.types)
        except ValueError as error:
            self._fail(argument, str(error), "write a condition on the event's fields, such as \"kind == 'a'\"")
        if not condition.truth:
            what = "text" if self._is_text(text) else "a number"
            mend = f'compare it: {argument}="amount > 0", {argument}="kind == \'a\'"'
            self._fail(argument, f"{text!r} is {what}, no condition", mend)
        return condition

    def _parse_columns(self) -> dict[str, Column]:
        columns = {}
        for aggregation in self.features:
            if not isinstance(aggregation, Aggregation):
                self._fail("features", f"{aggregation!r} is not an aggregate", 'write count(), mean("field"), ...')
            for argument in dataclasses.fields(aggregation):
                annotation = "Sequence[str] | None" if argument.name == "windows" else argument.type
                check_plain(
                    f"FeatureView {self.name!r}: {aggregation.word}()",
                    argument.name,
                    annotation,
                    getattr(aggregation, argument.name),
                    self.declared_at,
                )
            text = aggregation.column
            if aggregation.mistake:
                self._fail("features", f"{aggregation.word}({text!r}): {aggregation.mistake}", "correct the argument")
            if text is None:
                if aggregation.needs_column:
                    self._fail("features", f"{aggregation.word}() needs a field", f'write {aggregation.word}("field")')
                continue
            try:
                column = parse_column(text, self.source.types)
            except ValueError as error:
                self._fail("features", f"{aggregation.word}({text!r}): {error}", "name a field of the event, or a condition on its fields")
            if self._is_text(text) and aggregation.over_text() is None:
                self._fail(
                    "features",
                    f"{aggregation.word}({text!r}): {text!r} is text",
                    f'aggregate a number, or a condition such as rate("{text} == \'x\'", name="..."); of a text there are last({text!r}), first, distinct and count',
                )
            if not self._is_text(text) and not aggregation.takes_numbers:
                self._fail("features", f"{aggregation.word}({text!r}): {text!r} is no text", "name a field of str")
            if aggregation.needs_truth and not column.truth:
                self._fail(
                    "features", f"{aggregation.word}({text!r}): {text!r} is a number, no condition", _conditions(aggregation.word, text)
                )
            columns[text] = column
        return columns

    def _is_text(self, column: str) -> bool:
        return column in self.source.fields and self.source.base_type(column) is str

    def _plan_features(self) -> tuple[Feature, ...]:
        served: dict[str, Feature] = {}
        for aggregation in self.features:
            for window in aggregation.windows or tuple(self.windows):
                feature = self._feature(aggregation, window)
                check_name(feature.name, self.declared_at, "features")
                if feature.name in served:
                    self._fail("features", f"two features are called {feature.name!r}", 'give one of them a name: mean("x", name="...")')
                served[feature.name] = feature
        return tuple(served.values())

    def _feature(self, aggregation: Aggregation, window: str) -> Feature:
        label = aggregation.label
        if not label.isidentifier():
            self._fail(
                "features",
                f"{aggregation.word}({aggregation.column!r}) needs a name",
                f'write {aggregation.word}({aggregation.column!r}, name="...")',
            )
        planned = self._window(window)
        over_text = aggregation.over_text() if aggregation.column is not None and self._is_text(aggregation.column) else None
        return Feature(label + planned.suffix, over_text or aggregation, planned)

    def _window(self, window: str) -> Window:
        if window == LIFETIME:
            return Lifetime(FOREVER)
        window_ms = duration_ms(self, "windows", window)
        finest_ms = duration_ms(self, "tile", self.tile)
        chosen = self.tiles.get(window)
        if chosen is not None:
            tile_ms = duration_ms(self, "tiles", chosen)
        else:
            steps = sorted({finest_ms, *(step for step in _LADDER_MS if step > finest_ms)})
            tile_ms = next((step for step in steps if window_ms <= step * _MOST_TILES), steps[-1])
        if window_ms > tile_ms * _TILES_LIMIT:
            self._fail(
                "tiles", f"a window of {window} would have more than {_TILES_LIMIT} tiles of {format_ms(tile_ms)}", "choose longer tiles"
            )
        if window_ms % tile_ms:
            self._fail(
                "windows",
                f"a window of {window} is not a whole number of {format_ms(tile_ms)} tiles",
                f'set tile= or tiles={{"{window}": ...}} to a duration that divides it',
            )
        return sliding(window, Grid(tile_ms))

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"FeatureView {self.name!r}: {message}", where=self.declared_at, field=name, mend=mend)


def _conditions(word: str, text: str) -> str:
    """What may stand in place of a number."""
    part = text if text.isidentifier() else f"({text})"
    return f'compare it: {word}("{part} > 0", name="..."), or write mean({text!r}) for its mean'


@dataclass(frozen=True, eq=False)
class Selection(Declaration):
    """Some features of one view."""

    view: FeatureView
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        known = [feature.name for feature in self.view.served]
        unknown = [name for name in self.names if name not in known]
        if unknown or not self.names:
            message = f"has no feature {unknown[0]!r}" if unknown else "gives nothing when nothing is selected"
            raise DeclarationError(
                f"FeatureView {self.view.name!r} {message}", where=self.declared_at, field="select", mend=f"choose among {', '.join(known)}"
            )
