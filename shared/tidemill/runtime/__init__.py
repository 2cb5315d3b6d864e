"""What every process needs to run: settings, logs, metrics, health, HTTP, the watchdog, and a way to start and end."""
