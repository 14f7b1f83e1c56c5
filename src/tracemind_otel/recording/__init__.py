"""The port between a call and whatever records it. No OpenTelemetry."""
