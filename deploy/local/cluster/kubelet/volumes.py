"""Volumes as directories, and a container's root directory in which they appear under their mount paths.

There is no mount namespace: a container that mounts a volume at /data finds it at $GPUDEV_ROOT/data.
"""

import contextlib
import fcntl
import os
import re
import struct
from pathlib import Path, PurePosixPath

from deploy.local.cluster.kubelet.environment import ConfigError, Lookup, field_value, texts_of
from deploy.local.cluster.machinery.objects import Object

_MESSAGE_BYTES = 4096
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h."""
_HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class MountError(Exception):
    """A volume cannot be set up yet: FailedMount. The text is for the user."""


def spread(directory: Path) -> None:
    """Have ext4 keep the folders in it, and what will be in each, apart, as `chattr +T` does; nothing on others.

    For minutes after a file was deleted ext4 does not use its inode again, and for each new file in the same part of
    the disk it looks at all of those: twenty pods took twice the CPU after eighty had come and gone.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags | _TOP_OF_HIERARCHIES))
    finally:
        os.close(descriptor)


def set_up(pod: Object, directory: Path, lookup: Lookup, disks: Path) -> None:
    """Makes the pod's volumes in `directory`, persistent ones as links into `disks`; idempotent. Raises MountError."""
    for volume in pod["spec"].get("volumes") or []:
        path = directory / volume["name"]
        if "persistentVolumeClaim" in volume:
            _attach(volume, path, lookup, disks)
            continue
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            for name, content, mode in _files(volume, pod, lookup):
                _write(path / name, content, mode)
        except ConfigError as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error


def _attach(volume: Object, path: Path, lookup: Lookup, disks: Path) -> None:
    """Links a persistent volume: one directory for each CSI volume handle, which outlives every pod."""
    claim_name = volume["persistentVolumeClaim"]["claimName"]
    claim = lookup("persistentvolumeclaims", claim_name)
    name = (claim or {}).get("spec", {}).get("volumeName")
    persistent = lookup("persistentvolumes", name) if name else None
    reference = (persistent or {}).get("spec", {}).get("claimRef", {})
    if claim is None or persistent is None or reference.get("name") != claim_name:
        raise MountError(f'persistentvolumeclaim "{claim_name}" not found or not bound to a persistent volume')
    handle = str(persistent["spec"].get("csi", {}).get("volumeHandle", ""))
    if not _HANDLE.fullmatch(handle):
        raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : no CSI volume handle')
    (disks / handle).mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(disks / handle)


def link_mounts(container: Object, pod: Object, volumes: Path, root: Path) -> None:
    """Makes a container's root directory, with a link at every mount path; idempotent."""
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    sources = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    for mount in sorted(container.get("volumeMounts") or [], key=lambda m: str(m["mountPath"])):
        source = _source(sources[mount["name"]], volumes) / mount.get("subPath", "")
        if not source.exists():
            source.mkdir(parents=True)
        place = inside(root, mount["mountPath"])
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink() and not place.exists():
            place.symlink_to(source)


def make_message_file(container: Object, root: Path) -> None:
    """An empty file for the container's last words."""
    path = _message_file(container, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def last_message(container: Object, root: Path) -> str:
    """What the container has left in that file, at most 4 KiB."""
    try:
        with _message_file(container, root).open("rb") as file:
            return file.read(_MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _message_file(container: Object, root: Path) -> Path:
    return inside(root, container["terminationMessagePath"])


def inside(root: Path, path: str) -> Path:
    """Where an absolute path of the container lies; `..` never leads out."""
    return root / os.path.normpath(f"/{path}").lstrip("/")


def meaning(container: Object, root: Path, path: str) -> str:
    """Where a path of the container lies on this machine when it is below a mount; itself when it is not."""
    place = PurePosixPath(path)
    below = any(place.is_relative_to(mount["mountPath"]) for mount in container.get("volumeMounts") or [])
    return str(inside(root, path)) if below else path


def _source(volume: Object, volumes: Path) -> Path:
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    return volumes / str(volume["name"])


def _files(volume: Object, pod: Object, lookup: Lookup) -> list[tuple[str, bytes, int]]:
    if "secret" in volume:
        source = {**volume["secret"], "name": volume["secret"]["secretName"]}
        return _from_data("secrets", source, source["defaultMode"], lookup)
    if "configMap" in volume:
        return _from_data("configmaps", volume["configMap"], volume["configMap"]["defaultMode"], lookup)
    if "downwardAPI" in volume:
        return _from_fields(volume["downwardAPI"], volume["downwardAPI"]["defaultMode"], pod)
    if "projected" in volume:
        mode = volume["projected"]["defaultMode"]
        found: list[tuple[str, bytes, int]] = []
        for source in volume["projected"].get("sources") or []:
            if "secret" in source:
                found += _from_data("secrets", source["secret"], mode, lookup)
            if "configMap" in source:
                found += _from_data("configmaps", source["configMap"], mode, lookup)
            if "downwardAPI" in source:
                found += _from_fields(source["downwardAPI"], mode, pod)
        return found
    return []


def _from_data(resource: str, source: Object, mode: int, lookup: Lookup) -> list[tuple[str, bytes, int]]:
    value = lookup(resource, source["name"])
    if value is None:
        if source.get("optional"):
            return []
        raise ConfigError(f'{resource.removesuffix("s")} "{source["name"]}" not found')
    content = texts_of(value, resource)
    if "items" not in source:
        return [(name, data, mode) for name, data in content.items()]
    found = []
    for item in source["items"]:
        if item["key"] in content:
            found.append((item["path"], content[item["key"]], item.get("mode", mode)))
        elif not source.get("optional"):
            raise ConfigError(f"references non-existent {resource.removesuffix('s')} key: {item['key']}")
    return found


def _from_fields(source: Object, mode: int, pod: Object) -> list[tuple[str, bytes, int]]:
    return [
        (item["path"], field_value(pod, item["fieldRef"]["fieldPath"]).encode(), item.get("mode", mode))
        for item in source.get("items") or []
        if "fieldRef" in item
    ]


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"..{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)
