"""Watch a server: a local Prometheus with the rules and alerts of monitoring/."""
