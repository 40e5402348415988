# SPDX-License-Identifier: Apache-2.0
"""Every exception this library raises on purpose.

The middle classes answer one question: who must act?  Catch them to decide
that; catch a leaf only to recover from it.  Names that OpenStack nova has
too take the arguments nova's take.

    ImageCacheError
    ├── ImageError                        the image's owner, or who picked it
    │   ├── ImageUnacceptable               refused; ``reason`` says which rule
    │   │   ├── ImageSizeMismatch             not the number of bytes promised
    │   │   ├── ImageDigestMismatch           not the bytes promised
    │   │   ├── ImageSignatureInvalid         not signed, or not so
    │   │   ├── CertificateValidationFailed   signed by nobody who is trusted
    │   │   ├── ImageTooLarge                 over a limit of this site
    │   │   └── ImageChanged                  the cached base is of other bytes
    │   ├── ImageNotFound                   no such image, or none for you
    │   │   └── NothingWritten                a function fetched no image
    │   ├── ImageNotActive                  queued, saving, deactivated, ...
    │   ├── Forbidden                       the store refuses these credentials
    │   ├── FlavorDiskTooSmall              the disk cannot hold the image
    │   │   ├── FlavorDiskSmallerThanImage
    │   │   └── FlavorDiskSmallerThanMinDisk
    │   └── InvalidImageRef                 names no image of any known store
    ├── SourceError                       the image store's operator; try again
    │   ├── SourceUnreachable               no connection, or it broke
    │   ├── DownloadStalled                 no bytes came in time
    │   │   └── DownloadTooSlow               too few of them came
    │   ├── DownloadTruncated               it ended before its promised size
    │   ├── SourceMisbehaved                an answer the protocol forbids
    │   └── KeyManagerFailed                it gave no certificate
    ├── HostError                         this host's operator
    │   ├── CommandFailed                   a program exited with an error
    │   │   ├── CommandTimedOut               it ran over its wall clock limit
    │   │   └── CommandNotFound               it is not installed
    │   ├── NoSpace                         the file system has not enough
    │   ├── StorageFailed                   reading or writing failed
    │   │   ├── StorageUnreachable            a cluster does not answer
    │   │   ├── StorageForbidden              it refuses this host's key
    │   │   ├── StorageMissing                the pool, or what was in it
    │   │   ├── StorageExists                 something has that name
    │   │   └── StorageBusy                   somebody else has it in use
    │   ├── NbdUnavailable                  no block device for a disk
    │   ├── BaseNotVerified                 made before signatures mattered
    │   ├── UnsafeDisk                      its header was tampered with
    │   ├── InvalidDiskInfo                 the record of formats is damaged
    │   └── DiskInfoReadWriteFail           it cannot be read or written
    ├── InvalidConfiguration              whoever wrote the configuration
    └── CallerError                       the program that called
        ├── DiskNotFound
        ├── DiskExists
        ├── BaseNotFound
        ├── BaseInUse                       disks are still made of this base
        ├── InvalidDiskFormat
        ├── InvalidDevicePath
        ├── InvalidName                     unfit as part of a file name
        ├── KeyRequired                     the disk is encrypted
        ├── WrongKey                        and not with this key
        ├── SnapshotNotFound
        ├── SizeRequired                    a disk that no image gives a size
        └── UnsupportedImageModel
"""

from __future__ import annotations

from typing import Any


class ImageCacheError(Exception):
    """Root of the tree.  ``facts`` holds what the message was made of."""

    msg_fmt = "An image cache operation failed"

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        self.facts = facts
        self.message = self.msg_fmt.format(**facts) if message is None \
            else message
        # Pickling makes it anew from this one argument, and adds the facts:
        # an error that cannot be unpickled hangs a multiprocessing pool.
        super().__init__(self.message)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The facts, under the name nova gives them."""
        return self.facts

    def format_message(self) -> str:
        return self.message


# The image's owner, or whoever picked it.

class ImageError(ImageCacheError):
    """This image will not do, whatever host tries it."""


class ImageUnacceptable(ImageError):
    msg_fmt = "Image {image_id} is unacceptable: {reason}"


class ImageSizeMismatch(ImageUnacceptable):
    msg_fmt = ("Image {image_id} should have {expected} bytes and has"
               " {actual}: its data in the store is damaged")


class ImageDigestMismatch(ImageUnacceptable):
    msg_fmt = ("Image {image_id} has the {algorithm} digest {actual} and not"
               " {expected}: its data is damaged, or is not what was uploaded")


class ImageSignatureInvalid(ImageUnacceptable):
    msg_fmt = "Image {image_id} is not signed as it must be: {reason}"


class CertificateValidationFailed(ImageUnacceptable):
    msg_fmt = "Certificate {cert_uuid} is not trusted: {reason}"


class ImageTooLarge(ImageUnacceptable):
    msg_fmt = ("Image {image_id} has {size} bytes ({what}); {option} allows"
               " {limit}")


class ImageChanged(ImageUnacceptable):
    msg_fmt = ("Image {image_id} now has the digest {actual}, but its cached"
               " base was made from {expected}; an image's data must never"
               " change: find out why, then remove the base {key}")


class ImageNotFound(ImageError):
    msg_fmt = "Image {image_id} could not be found"


class NothingWritten(ImageNotFound):
    msg_fmt = ("The function that should have written {image_id} returned"
               " without an error, and wrote no file")


class ImageNotActive(ImageError):
    msg_fmt = "Image {image_id} is not active: its status is {status}"


class Forbidden(ImageError):
    msg_fmt = "The image store refuses access to image {image_id}: {reason}"


class FlavorDiskTooSmall(ImageError):
    msg_fmt = "The disk is too small for the image"


class FlavorDiskSmallerThanImage(FlavorDiskTooSmall):
    msg_fmt = ("A disk of {flavor_size} bytes cannot hold an image of"
               " {image_size} bytes")


class FlavorDiskSmallerThanMinDisk(FlavorDiskTooSmall):
    msg_fmt = ("A disk of {flavor_size} bytes is less than the"
               " {image_min_disk} bytes the image asks for (min_disk)")


class InvalidImageRef(ImageError):
    msg_fmt = "{image_ref!r} does not name an image: {reason}"


# The operator of the image store or the key manager, or of the network on
# the way to it.

class SourceError(ImageCacheError):
    """The image could not be had now.  Trying again later may succeed."""


class SourceUnreachable(SourceError):
    msg_fmt = "No connection to {source} for image {image_id}: {reason}"


class DownloadStalled(SourceError):
    msg_fmt = ("{source} sent nothing for {timeout} seconds while image"
               " {image_id} was read, after {received} bytes")


class DownloadTooSlow(DownloadStalled):
    msg_fmt = ("{source} sent {rate} bytes a second of image {image_id} in the"
               " last minute, {received} in all of it; [image_cache]"
               " download_min_rate asks for {min_rate}")


class DownloadTruncated(SourceError):
    msg_fmt = ("{source} ended image {image_id} after {received} bytes of"
               " {expected}: {reason}")


class SourceMisbehaved(SourceError):
    msg_fmt = "{source} gave no proper answer for image {image_id}: {reason}"


class KeyManagerFailed(SourceError):
    msg_fmt = ("The key manager did not give certificate {certificate_id}:"
               " {reason}")


# The operator of this host.

class HostError(ImageCacheError):
    """This host could not do it, whatever the image."""


class CommandFailed(HostError):
    msg_fmt = "{command} failed with exit code {exit_code}: {stderr}"


class CommandTimedOut(CommandFailed):
    msg_fmt = "{command} was stopped after {timeout} seconds"


class CommandNotFound(CommandFailed):
    msg_fmt = "{command} is not installed on this host"


class NoSpace(HostError):
    msg_fmt = ("Not enough space in {path} for {what}: {needed} bytes needed,"
               " {available} available")


class StorageFailed(HostError):
    msg_fmt = "{what} failed on {path}: {reason}"


class StorageUnreachable(StorageFailed):
    """A cluster does not answer in time; trying again later may succeed."""


class StorageForbidden(StorageFailed):
    """A cluster refuses the user, or what the user asks for."""


class StorageMissing(StorageFailed):
    """There is no such pool, or nothing of that name in it."""


class StorageExists(StorageFailed):
    """There is something of that name in the pool."""


class StorageBusy(StorageFailed):
    """It cannot be removed or locked while others use it."""


class NbdUnavailable(HostError):
    msg_fmt = ("The file system in {path} cannot grow through a block device,"
               " for which resize_fs_using_block_device asks: {reason}")


class BaseNotVerified(HostError):
    msg_fmt = ("Image {image_id} must be signed with certificate {wanted}, and"
               " its cached base {key} {had}; when no disk needs the base,"
               " remove it, and the next disk fetches and verifies the image")


class UnsafeDisk(HostError):
    msg_fmt = ("No program may open the disk {path}: {reason}; find out who"
               " changed its header")


class InvalidDiskInfo(HostError):
    msg_fmt = "The disk information is invalid: {reason}"


class DiskInfoReadWriteFail(HostError):
    msg_fmt = "The disk information could not be read or written: {reason}"


# Whoever wrote the configuration.

class InvalidConfiguration(ImageCacheError, RuntimeError):
    """Also a RuntimeError, which is what nova raises in its place."""

    msg_fmt = "Invalid configuration: {option} = {value!r}: {reason}"


# The program that called.

class CallerError(ImageCacheError):
    """The call makes no sense as things stand."""


class DiskNotFound(CallerError):
    msg_fmt = "No disk at {location}"


class DiskExists(CallerError):
    msg_fmt = "There is a disk at {location} already"


class BaseNotFound(CallerError):
    msg_fmt = "There is no base {key} in {store}"


class BaseInUse(CallerError):
    msg_fmt = "Base {key} is in use by {users}"


class InvalidDiskFormat(CallerError):
    msg_fmt = "Disk format {disk_format} is not acceptable here"


class InvalidDevicePath(CallerError):
    msg_fmt = "The device path {path} is invalid"


class InvalidName(CallerError):
    msg_fmt = "{name!r} cannot be used as {what}: {reason}"


class KeyRequired(CallerError):
    msg_fmt = "The disk at {location} is encrypted: its key is needed"


class WrongKey(CallerError):
    msg_fmt = "The disk at {location} cannot be opened with this key"


class SnapshotNotFound(CallerError):
    msg_fmt = "Snapshot {snapshot_id} could not be found"


class SizeRequired(CallerError):
    msg_fmt = "A size is needed to make {name}"


class UnsupportedImageModel(CallerError):
    msg_fmt = "Image model {image} is not supported here"
