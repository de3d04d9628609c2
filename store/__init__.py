"""What is on disk and what is done: a labelled Zarr cube and its ledger. No physics, no Dask.

- `store.schema`: one table of names, dims, types, units and meanings.
- `store.keys`: labels of cells and blocks, and their random streams.
- `store.chunks`: where blocks lie on disk, and which are left to compute.
- `store.array_store`: the cube: create, grow, write a block, read.
- `store.ledger`: what is done, what failed; the driver's lock.
- `store.reduced`: what was computed from the cube, beside it.
- `store.verify`: whether what was written is still there, and mending what is not.
- `store.place`: a folder or a URL, as keys with content; `store.lock`: the driver's lock there.
- `store.durable`: files that survive a power cut. `store.published`: the metadata that readers see.
"""
