"""Attacks: hostile files, kills and full disks. `make attack` runs them at full size, `make test` a few of each."""
