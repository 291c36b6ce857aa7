"""Data files at other places, copied to this machine when they are first used."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from filelock import FileLock

from multigrid.errors import UserError, brief
from multigrid.files import path_of, write_text, written_aside


def local(name: str | Path) -> Path:
    """Returns the path of a file or folder; that of a copy if the name is a URL.

    A URL may name a folder or be a pattern where the place can list its files, as ``s3://`` and
    ``hf://`` can. Copies lie in ``~/.cache/multigrid``, or where ``MULTIGRID_CACHE`` says; a file
    that has changed since, to judge by what is told of it, is copied again.

    Raises:
        UserError: If the files cannot be had, or a package is missing.
    """
    name = str(name)
    if "://" not in name:
        return path_of(name)
    root = Path(os.environ.get("MULTIGRID_CACHE", "~/.cache/multigrid")).expanduser()
    folder = root / hashlib.sha256(name.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            return _copy(name, folder)
    except ImportError as error:
        raise UserError(
            f"{name}: {brief(error)}; pip install 'multigrid-surrogates[remote]'"
        ) from None
    except UserError:
        raise
    except Exception as error:  # each place has errors of its own
        raise UserError(f"{name}: cannot be copied here: {brief(error)}") from None


def _copy(name: str, folder: Path) -> Path:
    import fsspec
    from fsspec.callbacks import TqdmCallback

    system, place = fsspec.core.url_to_fs(name)
    lists = not urlparse(name).scheme.startswith("http")  # a page is no list of files
    if lists and "*" in place:
        several = system.glob(place)
        start = place.partition("*")[0].rpartition("/")[0]
    else:
        several = system.find(place) if lists and system.isdir(place) else []
        start = place
    if not several and "*" in place:
        raise UserError(f"{name}: no file has such a name")
    files = {path: path.removeprefix(start).lstrip("/") for path in several}
    for path, below in (files or {place: PurePosixPath(urlparse(place).path).name}).items():
        target, told = folder / below, str(sorted(system.info(path).items()))
        if ".." in PurePosixPath(below).parts:
            raise UserError(f"{name}: '{below}' leads out of the folder")
        record = target.with_name(f".{target.name}.info")
        if not (target.exists() and record.exists() and record.read_text() == told):
            target.parent.mkdir(parents=True, exist_ok=True)
            bar = {"desc": target.name, "unit": "B", "unit_scale": True, "disable": None}
            with written_aside(target) as aside:
                system.get_file(path, str(aside), callback=TqdmCallback(tqdm_kwargs=bar))
            write_text(record, told)
    return folder if several else target
