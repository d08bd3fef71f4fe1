"""The cheapest quality setting that meets a target: probes, search, what may be promised."""
