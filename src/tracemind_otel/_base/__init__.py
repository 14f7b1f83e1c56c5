"""Ground of everything: context, forks and warnings that are said once. No domain, no OpenTelemetry."""
