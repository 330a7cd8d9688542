"""An image with all that belongs to it: where it is an index, the image of each platform.

parts = await parts_of(image, registry)        # the image itself comes first
"""

from __future__ import annotations

from buildonce.release.errors import RegistryError
from buildonce.release.models import Image
from buildonce.release.parallel import each
from buildonce.release.registry import Registry

_DEPTH = 4  # an index in an index in an index is nothing that anybody builds


async def parts_of(image: Image, registry: Registry, *, depth: int = 0) -> list[Image]:
    """The image, and where it is an index also each image that it names, all looked up.

    Raises:
        Absent: the registry says that it does not have one of them; the message names it.
        RegistryError: one could not be read.
    """
    if depth > _DEPTH:
        raise RegistryError(f"{image.reference} is nested too deeply to be an image")
    manifest = await registry.manifest(image.repository, image.digest)
    children = [Image(image.repository, child.digest) for child in manifest.children]
    found = await each(lambda child: parts_of(child, registry, depth=depth + 1), children)
    return [image, *(part for parts in found for part in parts)]
