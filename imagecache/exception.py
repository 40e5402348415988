# SPDX-License-Identifier: Apache-2.0
"""Every exception that this library raises on purpose.

The middle classes name the party that must act; catch one of them to decide
what becomes of a request, and a leaf only to recover from it.  A class whose
name OpenStack nova has too takes the arguments that nova's takes.  A message
says what failed, why, and what to do.

    ImageCacheError
    ├── ImageError                        the owner or the user of the image
    │   ├── ImageUnacceptable               refused; ``reason`` names the rule
    │   │   ├── ImageSizeMismatch             wrong number of bytes
    │   │   ├── ImageDigestMismatch           wrong bytes
    │   │   ├── ImageSignatureInvalid         no signature, or a wrong one
    │   │   ├── CertificateValidationFailed   the signer is not trusted
    │   │   ├── ImageTooLarge                 over a limit of this site
    │   │   └── ImageChanged                  the base was made of other bytes
    │   ├── ImageNotFound                   missing, or hidden from the user
    │   │   └── NothingWritten                a fetch function wrote no file
    │   ├── ImageNotActive                  queued, saving, deactivated, ...
    │   ├── Forbidden                       the store refuses the credentials
    │   ├── FlavorDiskTooSmall              the disk cannot hold the image
    │   │   ├── FlavorDiskSmallerThanImage
    │   │   └── FlavorDiskSmallerThanMinDisk
    │   └── InvalidImageRef                 not the name of an image
    ├── SourceError                       the operator of the image store
    │   ├── SourceUnreachable               no connection, or a broken one
    │   ├── DownloadStalled                 no bytes for too long
    │   │   └── DownloadTooSlow               too few bytes in the last minute
    │   ├── DownloadTruncated               ended before the promised size
    │   ├── SourceMisbehaved                an answer the protocol forbids
    │   └── KeyManagerFailed                no certificate from the key manager
    ├── HostError                         the operator of this host
    │   ├── CommandFailed                   a program exited with an error
    │   │   ├── CommandTimedOut               it reached its time limit
    │   │   └── CommandNotFound               it is not installed
    │   ├── NoSpace                         the storage is full
    │   ├── StorageFailed                   reading or writing failed
    │   │   ├── StorageUnreachable            the cluster does not answer
    │   │   ├── StorageForbidden              the cluster refuses this user
    │   │   ├── StorageMissing                no such pool or object
    │   │   ├── StorageExists                 the name is taken
    │   │   └── StorageBusy                   in use by another client
    │   ├── NbdUnavailable                  no block device for a disk
    │   ├── BaseNotVerified                 the base lacks a needed signature
    │   ├── UnsafeDisk                      the header was tampered with
    │   ├── InvalidDiskInfo                 the record of formats is damaged
    │   └── DiskInfoReadWriteFail           the record cannot be accessed
    ├── InvalidConfiguration              the author of the configuration
    └── CallerError                       the calling program
        ├── DiskNotFound
        ├── DiskExists
        ├── BaseNotFound
        ├── BaseInUse                       disks depend on the base
        ├── InvalidDiskFormat
        ├── InvalidDevicePath
        ├── InvalidName                     unfit as part of a file name
        ├── KeyRequired                     the disk is encrypted
        ├── WrongKey                        the disk has another key
        ├── SnapshotNotFound
        ├── SizeRequired                    neither caller nor image has a size
        └── UnsupportedImageModel
"""

from __future__ import annotations

from typing import Any

from imagecache import text


class ImageCacheError(Exception):
    """Root of the tree; ``message`` is one line, ``facts`` are its values."""

    msg_fmt = "An image cache operation failed"

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        self.facts = facts
        self.message = text.filled_in(self.msg_fmt, facts) \
            if message is None else text.one_line(message)
        # Unpickling calls the class with this alone, then adds the facts; an
        # error that cannot be unpickled hangs a multiprocessing pool.
        super().__init__(self.message)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The facts, under the name nova gives them."""
        return self.facts

    def format_message(self) -> str:
        return self.message


# The owner of the image, or the user that chose it, must act.

class ImageError(ImageCacheError):
    """Every host would refuse this image."""


class ImageUnacceptable(ImageError):
    msg_fmt = "Image {image_id} is unacceptable: {reason}"


class ImageSizeMismatch(ImageUnacceptable):
    msg_fmt = ("Image {image_id} should have {expected} bytes and has"
               " {actual}: its data in the store is damaged; upload it again")


class ImageDigestMismatch(ImageUnacceptable):
    msg_fmt = ("Image {image_id} has the {algorithm} digest {actual} and not"
               " {expected}: its data was damaged or changed; upload it again")


class ImageSignatureInvalid(ImageUnacceptable):
    msg_fmt = "Image {image_id} has no valid signature: {reason}"


class CertificateValidationFailed(ImageUnacceptable):
    msg_fmt = "Certificate {cert_uuid} is not trusted: {reason}"


class ImageTooLarge(ImageUnacceptable):
    msg_fmt = ("Image {image_id} has {size} bytes ({what}), and {option}"
               " allows {limit}; use a smaller image, or raise the option")


class ImageChanged(ImageUnacceptable):
    msg_fmt = ("Image {image_id} now has the digest {actual}, but its cached"
               " base was made from {expected}; the data of an image must"
               " never change: find out why it did, then remove the base"
               " {key}")


class ImageNotFound(ImageError):
    msg_fmt = ("Image {image_id} could not be found; check its name, and that"
               " the user may see it")


class NothingWritten(ImageNotFound):
    msg_fmt = ("The function that fetches {image_id} returned without an"
               " error and wrote no file; it must write one or raise")


class ImageNotActive(ImageError):
    msg_fmt = ("Image {image_id} is not active: its status is {status}; wait"
               " for its upload, or activate it")


class Forbidden(ImageError):
    msg_fmt = "The image store refuses access to image {image_id}: {reason}"


class FlavorDiskTooSmall(ImageError):
    msg_fmt = "The disk is too small for the image; ask for a larger disk"


class FlavorDiskSmallerThanImage(FlavorDiskTooSmall):
    msg_fmt = ("A disk of {flavor_size} bytes cannot hold an image of"
               " {image_size} bytes; ask for a larger disk")


class FlavorDiskSmallerThanMinDisk(FlavorDiskTooSmall):
    msg_fmt = ("A disk of {flavor_size} bytes is smaller than the"
               " {image_min_disk} bytes that the image requires (min_disk);"
               " ask for a larger disk")


class InvalidImageRef(ImageError):
    msg_fmt = "{image_ref!r} does not name an image: {reason}"


# The operator of the image store, of the key manager, or of the network to
# them must act.

class SourceError(ImageCacheError):
    """The image could not be fetched now.  A later attempt may succeed."""


class SourceUnreachable(SourceError):
    msg_fmt = ("No connection to {source} for image {image_id}: {reason}; try"
               " again later, and check the address and the network")


class DownloadStalled(SourceError):
    msg_fmt = ("{source} sent no usable data for {timeout} seconds while image"
               " {image_id} was read, after {received} bytes; try again later,"
               " or raise [image_cache] read_timeout")


class DownloadTooSlow(DownloadStalled):
    msg_fmt = ("{source} sent {rate} bytes a second of image {image_id} in the"
               " last minute, {received} bytes in all; [image_cache]"
               " download_min_rate requires {min_rate}; check the network, or"
               " lower the option")


class DownloadTruncated(SourceError):
    msg_fmt = ("{source} ended image {image_id} after {received} bytes of"
               " {expected}: {reason}; try again later")


class SourceMisbehaved(SourceError):
    msg_fmt = ("{source} gave an invalid answer for image {image_id}:"
               " {reason}; check the address and the server's log")


class KeyManagerFailed(SourceError):
    msg_fmt = ("The key manager did not give certificate {certificate_id}:"
               " {reason}; try again later, and check [key_manager]")


# The operator of this host must act.

class HostError(ImageCacheError):
    """This host failed; another host may succeed with the same image."""


class CommandFailed(HostError):
    msg_fmt = "{command} failed with exit code {exit_code}: {stderr}"


class CommandTimedOut(CommandFailed):
    msg_fmt = "{command} was stopped after {timeout} seconds"


class CommandNotFound(CommandFailed):
    msg_fmt = ("{command} is not installed on this host; install it, or add"
               " its directory to PATH")


class NoSpace(HostError):
    msg_fmt = ("Not enough space in {path} for {what}: {needed} bytes needed,"
               " {available} available; free space, for example by removing"
               " bases that no disk uses")


class StorageFailed(HostError):
    msg_fmt = "{what} failed on {path}: {reason}"


class StorageUnreachable(StorageFailed):
    """The cluster does not answer in time; try again later."""


class StorageForbidden(StorageFailed):
    """The cluster refuses the user or the operation; check its caps."""


class StorageMissing(StorageFailed):
    """The pool does not exist, or nothing in it has that name."""


class StorageExists(StorageFailed):
    """An object in the pool has that name already."""


class StorageBusy(StorageFailed):
    """It cannot be removed or locked while another client uses it."""


class NbdUnavailable(HostError):
    msg_fmt = ("The file system in {path} cannot grow: [libvirt]"
               " resize_fs_using_block_device needs a network block device,"
               " and {reason}")


class BaseNotVerified(HostError):
    msg_fmt = ("Image {image_id} must be signed with certificate {wanted}, and"
               " its cached base {key} {had}; remove the base when no disk"
               " uses it: the next disk fetches and verifies the image")


class UnsafeDisk(HostError):
    msg_fmt = ("Disk {path} must not be opened: {reason}; no guest can change"
               " its header, so find out which process did")


class InvalidDiskInfo(HostError):
    msg_fmt = ("The disk information is invalid: {reason}; restore it from"
               " the instance's domain, and not from the disks' content")


class DiskInfoReadWriteFail(HostError):
    msg_fmt = ("The disk information could not be read or written: {reason};"
               " check the permissions and the file system")


# The author of the configuration must act.

class InvalidConfiguration(ImageCacheError, RuntimeError):
    """Also a RuntimeError, because nova raises that class instead."""

    msg_fmt = "Invalid configuration: {option} = {value!r}: {reason}"


# The calling program must act.

class CallerError(ImageCacheError):
    """The call is wrong, or came too early or too late."""


class DiskNotFound(CallerError):
    msg_fmt = "No disk at {location}; check the instance and the disk's name"


class DiskExists(CallerError):
    msg_fmt = "There is a disk at {location} already; use or remove it"


class BaseNotFound(CallerError):
    msg_fmt = ("There is no base {key} in {store}; `imagecache base list`"
               " lists the bases")


class BaseInUse(CallerError):
    msg_fmt = "Base {key} is in use by {users}; remove or flatten them first"


class InvalidDiskFormat(CallerError):
    msg_fmt = "Disk format {disk_format} is not supported here; use another"


class InvalidDevicePath(CallerError):
    msg_fmt = ("The device path {path} is invalid: it does not name a disk"
               " of this backend")


class InvalidName(CallerError):
    msg_fmt = "{name!r} cannot be used as {what}: {reason}"


class KeyRequired(CallerError):
    msg_fmt = "The disk at {location} is encrypted; pass its key"


class WrongKey(CallerError):
    msg_fmt = ("The disk at {location} cannot be opened with this key; pass"
               " the key that it was made with")


class SnapshotNotFound(CallerError):
    msg_fmt = "Snapshot {snapshot_id} could not be found; check its name"


class SizeRequired(CallerError):
    msg_fmt = "{name} has no size of its own; pass one"


class UnsupportedImageModel(CallerError):
    msg_fmt = "Image model {image} is not supported here"
