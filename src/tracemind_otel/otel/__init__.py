"""Everything that knows OpenTelemetry."""
