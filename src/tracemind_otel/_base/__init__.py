"""What every package may use: context, forks, waits, faults that are logged once. No domain, no OpenTelemetry."""
