"""``python -m napari_kdseg.cli``: what ``kdseg`` does, for starters that want a module (``torchrun -m``)."""

from napari_kdseg.cli import main

if __name__ == "__main__":
    main()
