"""One model call, from its configuration to its result. No OpenTelemetry."""
