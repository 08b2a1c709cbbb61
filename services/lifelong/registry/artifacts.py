"""The artifact store that the settings ask for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lifelong.config.shared import ArtifactSettings
from lifelong.errors import ConfigError, MissingPartError
from lifelong.registry.base import ArtifactStore
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.in_memory import InMemoryStore
from lifelong.registry.objects import ObjectStore

__all__ = ["DirectoryStore", "InMemoryStore", "ObjectStore", "open_store"]


def open_store(settings: ArtifactSettings) -> ArtifactStore:
    """A directory for plain paths and ``file://``, an object store for every other URL that fsspec knows.

    Raises:
        MissingPartError: the driver of this kind of URL is not installed.
        ConfigError: the URL cannot be used.
    """
    url = settings.url
    if "://" not in url:
        return DirectoryStore(Path(url).expanduser())
    if url.startswith("file://"):
        return DirectoryStore(Path(unquote(urlsplit(url).path)))
    # Here, so that the directory, which is the default, costs no import.
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingPartError(f"artifacts.url {url!r}: {error}") from error
    except ValueError as error:
        raise ConfigError("artifacts.url", f"{url!r}: {error}") from error
    return ObjectStore(filesystem, root)
