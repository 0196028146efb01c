"""Attacks: files, folders, kills and full disks of every kind. `make attack` runs them at full size, `make test` a few of each."""
