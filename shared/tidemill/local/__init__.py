"""The whole of tidemill on one machine: Kafka, Valkey and every service as supervised processes (extra ``local``)."""
