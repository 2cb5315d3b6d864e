"""What every process needs to run: settings, logs, metrics, health, HTTP, the watchdog, and how a process starts and ends."""
