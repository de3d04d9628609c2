"""The studies that come with hesscape, one TOML file each."""
