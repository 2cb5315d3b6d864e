"""The Open Inference Protocol, version 2: messages that know no transport, their JSON and binary forms, and HTTP."""
