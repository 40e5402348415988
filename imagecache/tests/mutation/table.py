# SPDX-License-Identifier: Apache-2.0
"""The modules with defences, the tests that cover them, and exceptions."""

from __future__ import annotations

import dataclasses

# Modules whose rules and raise statements are defences, and their tests.
TESTS: dict[str, tuple[str, ...]] = {
    "formats/qcow2.py": ("unit.test_corpus", "unit.test_formats_qcow2"),
    "formats/qcow2_tables.py": ("unit.test_formats_qcow2_tables",
                                "unit.test_corpus"),
    "formats/raw.py": ("unit.test_corpus",),
    "formats/reader.py": ("unit.test_corpus",),
    "formats/rules.py": ("unit.test_corpus",),
    "formats/vdi.py": ("unit.test_formats_foreign", "unit.test_corpus"),
    "formats/vhd.py": ("unit.test_formats_foreign", "unit.test_corpus"),
    "formats/vhdx.py": ("unit.test_formats_foreign", "unit.test_corpus"),
    "formats/vmdk.py": ("unit.test_corpus",),
    "inspection/inspector.py": ("unit.test_inspector", "unit.test_corpus"),
    "inspection/verify.py": ("unit.test_verify", "unit.test_corpus"),
    "inspection/backing.py": ("unit.test_backing",),
    "bases/download.py": ("unit.test_download",),
    "bases/pipeline.py": ("unit.test_pipeline", "unit.test_base_cache",
                    "unit.test_image_cache", "unit.test_backends_raw",
                    "unit.test_signatures"),
    "bases/admission.py": ("unit.test_base_cache", "unit.test_corpus",
                           "unit.test_resized_bases",
                           "unit.test_signatures"),
    "bases/cache.py": ("unit.test_base_cache", "unit.test_corpus",
                      "unit.test_signatures"),
    "model.py": ("unit.test_model", "unit.test_corpus"),
    "sources/file.py": ("unit.test_sources_file",),
    "sources/http.py": ("unit.test_sources_http",),
    "sources/resolve.py": ("unit.test_sources_resolve",
                           "unit.test_sources_file",
                           "unit.test_sources_http"),
    "sources/transport.py": ("unit.test_sources_hostile_web",),
    "sources/wire.py": ("unit.test_sources_http", "unit.test_sources_glance"),
    "backends/lvm/thin_store.py": ("unit.test_lvm",),
    "tools/lvm.py": ("unit.test_lvm",),
    "backends/lvm/volumes.py": ("unit.test_lvm",),
}


@dataclasses.dataclass(frozen=True)
class Change:
    name: str
    module: str
    old: str       # is there once
    new: str
    tests: tuple[str, ...]


_SANDBOX = ("unit.test_sandbox", "unit.test_sandbox_limits",
            "unit.test_sandbox_images", "functional.test_sandbox")
_REWRITTEN = ("functional.test_rewritten_disks",)

CHANGES: tuple[Change, ...] = (
    # Defences that do not raise.
    Change("a raw disk that a guest has open", "backends/file/raw.py",
           "            self._require_unused()\n", "",
           ("unit.test_backends_raw",)),
    Change("a disk that qemu has locked", "system/writers.py",
           "_qemu_writes(f.fileno()) or ", "", ("unit.test_backends_raw",)),
    Change("a disk that a process has open", "system/writers.py",
           " or leases.is_written(f.fileno())", "",
           ("unit.test_backends_raw",)),
    Change("a base whose signature is verified again", "bases/pipeline.py",
           "    verifier.verify()\n    work.observe(", "    work.observe(",
           ("unit.test_signatures",)),
    Change("a text of vmdk after comments", "formats/raw.py",
           r'rb"(?:#[^\n]*\n|[ \t]*\r?\n)*version=', 'rb"version=',
           ("unit.test_corpus",)),
    Change("what the inspector says", "inspection/inspector.py",
           "        self._require_agreement(found)\n", "",
           ("unit.test_corpus",)),
    Change("as soon as it shows", "inspection/inspector.py",
           "self.format = self._recognise(_ENDLESS)",
           "self.format = Format.RAW", ("unit.test_corpus",)),
    Change("the content of a base that stays qcow2", "bases/pipeline.py",
           "        verify.require_intact(validated, work.name,"
           " work.policy)\n        return keep", "        return keep",
           ("unit.test_corpus",)),
    Change("the content of a qcow2 base of older rules", "bases/pipeline.py",
           "    verify.require_intact(validated, work.name, work.policy)\n"
           "    return validated", "    return validated",
           ("unit.test_corpus",)),
    Change("clusters outside the file", "formats/qcow2_tables.py",
           "        return self._header.inside(highest,"
           " self._header.cluster_size)\n", "        return True\n",
           ("unit.test_formats_qcow2_tables",)),
    Change("entries that are not plain", "formats/qcow2_tables.py",
           "        if number & self._not_plain:\n", "        if False:\n",
           ("unit.test_corpus",)),
    Change("what an image refers to, in an image", "inspection/verify.py",
           "    refuse_nested(head, image_id)\n", "",
           ("unit.test_corpus",)),
    Change("bases of older rules", "bases/cache.py",
           "entry.record.rules < verify.RULES", "False",
           ("unit.test_base_cache",)),
    Change("the same image", "bases/cache.py",
           "        admission.require_same_image(source, entry)\n", "",
           ("unit.test_base_cache",)),
    Change("what fits", "bases/pipeline.py",
           "    require_fit(plan.source, validated.virtual_size, work.size,"
           " work.policy)\n", "", ("unit.test_pipeline",
                                  "unit.test_backends_raw")),
    Change("what fits, before the download", "bases/download.py",
           "            self._require_fit(whole_sectors("
           "self._wanted.size or 0))\n", "", ("unit.test_download",)),
    Change("what fits, after the first cluster", "bases/download.py",
           "        self._admission.check(self._inspector,"
           " self.size + len(chunk))\n", "", ("unit.test_download",)),
    Change("images in images", "bases/pipeline.py",
           "    verify.refuse_nested(staging.head(raw.NEEDED),"
           " work.name)\n", "",
           ("unit.test_pipeline", "unit.test_corpus")),
    Change("a limit while it comes", "bases/download.py",
           "            _require_size(wanted, receiver.size, limit)\n", "",
           ("unit.test_download",)),
    # No format is guessed, and no other file followed.
    Change("the format of what is asked about", "tools/qemu_img.py",
           '"-f", format, _name(path), limits=limits.writing(0)',
           "_name(path), limits=limits.writing(0)",
           ("unit.test_qemu_img", "unit.test_corpus")),
    Change("the format of what is converted", "tools/qemu_img.py",
           '"-f", source_format, "-O", output_format',
           '"-O", output_format', _REWRITTEN),
    Change("the format of what is resized", "tools/qemu_img.py",
           '"resize", "-q", "-f", format, ', '"resize", "-q", ',
           ("unit.test_qemu_img",)),
    Change("the format of a base", "tools/qemu_img.py",
           '"-b", _name(backing), "-F", backing_format',
           '"-b", _name(backing)', ("unit.test_backends_qcow2",)),
    Change("the base of a disk", "backends/file/disk.py",
           "return backing.base_of(path, self.host.policy.bases)",
           "return None", _REWRITTEN),
    Change("a disk without a record", "backends/file/disk.py",
           "unrecorded: ClassVar[Format] = Format.RAW",
           "unrecorded: ClassVar[Format] = Format.QCOW2", _REWRITTEN),
    Change("a data file", "inspection/backing.py",
           "qcow2.NO_DATA_FILE + sound", "sound",
           ("unit.test_backing",)),
    # Encrypted disks.
    Change("whether a disk is encrypted", "backends/file/disk.py",
           "if self.is_encrypted() != self.encrypts:", "if False:",
           ("unit.test_backends_encrypted",)),
    Change("a disk that is LUKS no more", "tools/luks.py",
           "if magic == MAGIC and version == 1 and 0 < offset <= size:",
           "if True:", ("unit.test_backends_encrypted",)),
    Change("a record of no disk", "backends/file/disk.py",
           "format if self.encrypts else None", "format",
           ("unit.test_backends_encrypted",)),
    # The sandbox.
    *(Change(name, "system/sandbox/__init__.py", old, "", _SANDBOX)
      for name, old in (
          ("other files", "restrict,\n"),
          ("new privileges", "kernel.no_new_privileges(), "),
          ("capabilities", "kernel.drop_capabilities(),\n"),
          ("system calls", """,
               *([kernel.filter_calls(program, seccomp.PROCESS)]
                 if program else [])"""))),
    Change("files that are open", "system/sandbox/__init__.py",
           "yield [kernel.close_on_exec(), ", "yield [", _SANDBOX),
    Change("orphans", "system/sandbox/__init__.py",
           "calls = [kernel.die_with(os.getpid(), signal.SIGKILL)]",
           "calls = []", (*_SANDBOX, "unit.test_execute")),
    Change("orphans of bubblewrap", "system/sandbox/__init__.py",
           "calls = [guard.guarded(os.getpid()), setter(limits)]",
           "calls = [setter(limits)]", ("functional.test_sandbox",)),
    Change("system calls in bubblewrap", "system/sandbox/bubblewrap.py",
           '() if filter is None else ("--seccomp", str(filter))', "()",
           ("functional.test_sandbox",)),
    Change("the end of bubblewrap's namespace", "system/sandbox/guard.py",
           "        _end_orphans()\n", "", ("functional.test_sandbox",)),
    Change("processes of a program", "system/sandbox/seccomp.py",
           "(_HAS_BIT, 1, 0, _CLONE", "(_HAS_BIT, 1, 1, _CLONE", _SANDBOX),
    Change("the environment of a program", "system/execute.py",
           "if not confined or name in _KEPT", "if True", _SANDBOX),
    Change("a file that can still be written", "system/durable.py",
           "        leases.require_no_writer(descriptor, path)\n", "",
           ("unit.test_durable",)),
    Change("limits", "system/sandbox/__init__.py",
           "_each(*calls, setter(limits))", "_each(*calls)", _SANDBOX),
    Change("the network", "system/sandbox/landlock.py",
           "0b11 if version >= _NETWORK else 0", "0", _SANDBOX),
    Change("beyond itself", "system/sandbox/landlock.py",
           "0b11 if version >= _SCOPES else 0", "0", _SANDBOX),
    *(Change(f"a limit of {name}", "system/sandbox/limits.py", f"{old},\n", "",
             _SANDBOX)
      for name, old in (
          ("core files", "        resource.RLIMIT_CORE: (0, 0)"),
          ("open files",
           "        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES)"),
          ("file size", "        resource.RLIMIT_FSIZE: "
           "(limits.file_size, limits.file_size)"),
          ("CPU", "        resource.RLIMIT_CPU: "
           "(cpu, None if cpu is None else cpu + 1)"),
          ("memory", "        resource.RLIMIT_AS: "
           "(limits.address_space, limits.address_space)"))),
    # Stores.
    Change("redirects of Glance", "sources/glance.py", "redirect=False",
           "redirect=True", ("unit.test_sources_glance",)),
    Change("redirects", "sources/http.py", "allow_redirects=False",
           "allow_redirects=True", ("unit.test_sources_http",)),
    Change("the body of a redirect", "sources/http.py",
           "with (transport.Session() as", "with (requests.Session() as",
           ("unit.test_sources_http",)),
    Change("the deadline of an answer", "sources/transport.py",
           "self._sock.settimeout(time_left)", "pass",
           ("unit.test_sources_hostile_web",)),
    Change("the size of an answer", "sources/transport.py",
           "self._left -= size", "pass",
           ("unit.test_sources_hostile_web",)),
    Change("a login elsewhere", "sources/http.py",
           "login if same else None", "login",
           ("unit.test_sources_http",)),
    Change("a login of netrc", "sources/http.py", "else _no_login",
           "else None", ("unit.test_sources_http",)),
    Change("a pipe for an image", "sources/file.py",
           "        _require_regular(path.stat(), path)\n", "",
           ("unit.test_sources_file",)),
    Change("a pipe since then", "sources/file.py",
           "        _require_regular(status, path)\n", "",
           ("unit.test_sources_file",)),
)

# Whose loss no test can notice, and why.
SPARED: dict[str, str] = {
    "formats/qcow2.py: _extensions() 1 of 2":
        "what is longer than the cluster leaves no room for an end",
    "sources/wire.py: _stream() 1 of 2":
        "an answer without content has no range either",
    "sources/http.py: redirects":
        "the session knows no redirects, whatever it is told",
}
