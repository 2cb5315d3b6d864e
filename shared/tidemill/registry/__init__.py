"""Events that a schema registry's serializers framed: JSON, Avro and Protobuf become JSON by the schema that each record names.

    frames = configured_frames()           # by the environment, or registry_frames(RegistrySettings(url=...))
    frames(b"\\x00\\x00\\x00\\x00\\x07...")     # b'{"order": 1, ...}'

The registry speaks Confluent's HTTP interface, as Karapace, Apicurio (`/apis/ccompat/v7`) and others do too.
"""

from tidemill.registry.frames import configured_frames, registry_frames
from tidemill.registry.settings import RegistrySettings

__all__ = ["RegistrySettings", "configured_frames", "registry_frames"]
