"""What a build takes from earlier ones, and leaves to later ones.

With the daemon's state: the state itself, the images beside it, and a portable cache that is kept
up to date for other machines. Without it the portable cache alone, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from plp_builder import drafting, log, recalling
from plp_builder.buildkit import damage, pruning
from plp_builder.buildkit.runtime import remove_trees
from plp_builder.cache import images, index, mounts, portable, staging, state
from plp_builder.cache.context_store import Made
from plp_builder.cache.copies import Copies
from plp_builder.cache.files import remove
from plp_builder.cache.identity import identity
from plp_builder.cache.images import Images
from plp_builder.cache.verification import Record, verify
from plp_builder.drafting import Drafting
from plp_builder.errors import ArchiveInvalid, StateDamaged, TimedOut
from plp_builder.oci.layout import BlobDamaged, blob_path, reachable
from plp_builder.oci.model import Manifest
from plp_builder.tidying import Tidying

if TYPE_CHECKING:
    from plp_builder.buildkit import Endpoint
    from plp_builder.cache.choice import Choice
    from plp_builder.cache.mounts import Reach
    from plp_builder.cache.portable import BuildCache
    from plp_builder.cache.state import State
    from plp_builder.oci.assembly import Draft, Holds
    from plp_builder.oci.model import Descriptor, Digest, Index
    from plp_builder.output import Output
    from plp_builder.preflight.paths import Paths
    from plp_builder.settings import Settings
    from plp_builder.solve import CacheExport, CacheImport, SolveRequest

_PASSED_ON = "PATH", "HOME", "USER", "XDG_RUNTIME_DIR", "TMPDIR"


class Caching:
    """The caches of one build: a context manager.

    ``readers`` are the uids of the daemon and of its client, ``output`` is where the archive goes,
    if one is wanted. ``check`` is called often and may raise; nothing else gets out, except where
    a method says so.
    """

    def __init__(
        self,
        choice: Choice,
        settings: Settings,
        paths: Paths,
        environ: Mapping[str, str],
        readers: frozenset[int],
        output: Output | None,
        check: Callable[[], None],
    ) -> None:
        self._choice = choice
        self._readers = readers
        self._env = {name: environ[name] for name in _PASSED_ON if name in environ}
        self._settings = settings
        self._paths = paths
        self._check = check
        self._mounts = mounts.carrier_for(settings, paths, check)
        self._output = output
        self._draft: Drafting | None = None
        self._stack = ExitStack()
        self._portable: BuildCache | None = None
        self._images: Images | None = None
        self._top: Descriptor | None = None
        self._holds: Holds | None = None
        self._manifest: Manifest | Index | None = None
        self._steps: int | None = None
        self._removed: set[Digest] = set()
        self._copies: Copies | None = None
        self._is_exported = False
        self._was_exported = False
        # Nothing that somebody might want to hide is left in the daemon's records.
        self._tidying = Tidying(self._env, said=bool(settings.build_args))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_draft()
        self._stack.close()

    @property
    def state(self) -> State | None:
        """The daemon's state that this build uses, if it does."""
        return self._choice.state

    @property
    def imports(self) -> tuple[CacheImport, ...]:
        """What the solve of the image imports: nothing where the daemon knows something itself."""
        return self._portable.imports if self._portable and not self._is_warm else ()

    @property
    def layout(self) -> Path | None:
        """The OCI layout that the image is exported into; without one it becomes a tar at once."""
        if not self._output:
            return None
        if self._images:
            return self._images.directory
        return self._portable.layout if self._portable else None

    @property
    def export_with_image(self) -> CacheExport | None:
        """Where the solve of the image exports the portable cache to.

        Only where something new is expected, in which case that spares another solve. To where the
        image goes, so that neither sends what the other has sent; but not from a state: what it has
        lost of a layer would not be missed if that lay there already, and BuildKit (0.32) would not
        rewrite its times (SOURCE_DATE_EPOCH). What it has just sent has not been lost: see
        `forwarding`.
        """
        export = self._portable.export if self._portable else None
        if export and self.layout and not self._is_warm:
            export = export._replace(path=self.layout)
        return export

    @property
    def kind(self) -> str:
        """Which cache it is, in one word."""
        if self.state:
            return "state" if self.state.warm else "state, empty"
        none = self._settings.cache_strategy == "off" or self._paths.cache is None
        return "off" if none else "portable"

    def begin(self, request: SolveRequest) -> int | None:
        """Look at what there is, before each attempt to solve ``request``.

        Where that need not be solved, its image is in the layout, and the number of its steps
        comes back. Raises StateNotCarried.
        """
        self.end_draft()
        self._images = self._copies = None
        if self.state:
            try:
                self._images = Images(self.state.layout)
                self._images.begin(drafting.key_of(request, self._choice.asked))
                self._copies = Copies(
                    self.state.fingerprint, dict(request.locals), self._own, warm=self.state.warm
                )
                self._begin_draft(request)
                self._was_exported = self.state.is_exported(self._tag)
                made = self._copies.made
                if made and self._recall(made, request):
                    return made.steps
                self._copies.begin()
            except OSError as error:
                raise state.not_carried(error) from None
            # Until it has been exported, whatever ends this build.
            self.state.not_exported(self._tag)
        if self._takes_part:
            self._open_portable()
            assert self._portable  # noqa: S101 - for the type checker
            if not self._is_warm:
                self._portable.serve(self._readers)
                if self._images:
                    self._portable.lend(self._images.directory)
        return None

    @property
    def must_settle(self) -> bool:
        """Whether no solve may begin before `settle`."""
        return bool(self._doubt or (self._mounts and self._mounts.waiting and not self._is_warm))

    def settle(self, reach: Reach) -> None:
        """Have the daemon, which is ready, forget what it may have stale copies of.

        And fill the cache mounts that it does not know. Raises StateDamaged.
        """
        if self.state:
            self.state.keep_verdict()
        if self._doubt:
            log.debug("the build context is read whole", reason=self._doubt)
            pruning.local_sources(reach.endpoint, self._env)
        if self._mounts:
            self._mounts.tell(state=self.state is not None)
            if not self._is_warm:
                self._mounts.restore(reach)

    def gives_up(self, said: str) -> bool:
        """Whether a solve failed because of the portable cache, which is done without from now."""
        if self._portable is None or not self._portable.give_up(said):
            return False
        if self._images:
            self._images.doubt()
        return True

    def is_too_full(self, said: str) -> bool:
        """Whether the daemon ``said`` that it lacks the room to go on, where its state is kept."""
        return self.state is not None and damage.stops_for_lack_of_room(said)

    def is_blamed(self, said: str) -> bool:
        """Whether what a daemon ``said`` of a failed solve speaks of its state."""
        found = self.state
        return found is not None and found.warm and damage.blames_state(said)

    def forwarding(self) -> AbstractContextManager[object]:
        """For the time of the image's solve: see `portable.BuildCache.forwarding`."""
        if self._is_warm and self._portable and self.layout:
            return self._portable.forwarding(self.layout)
        return nullcontext()

    def solved(self, *, steps: int | None) -> None:
        """The image's solve has gone well, and with it the export that it was asked for.

        ``steps`` is how many the image has, if nothing it was made of can change unseen.
        """
        self._is_exported = self.export_with_image is not None
        self._steps = steps

    def verify(self, top: Descriptor | None = None) -> bool:
        """Whether the layout, if there is one, holds the image whole: ``top``, or the one solved.

        Each blob is read once, as long as its file stays the same, or always with
        PLP_VERIFY=full. Damaged ones are removed, so that the next solve sends them again.
        Raises ArchiveInvalid where one is damaged again, or where it cannot be read.
        """
        if not self.layout:
            return True
        damaged: list[BlobDamaged] = []
        known = Record({}) if self._settings.verify == "full" else Record.read(self.layout)
        try:
            self._top = top or images.built(self.layout)
            nodes = tuple(reachable(self.layout, self._top))
            needed = [node.descriptor for node in nodes]
            damaged += verify(self.layout, needed, known, check=self._check)
            self._manifest = nodes[0].document
        except BlobDamaged as problem:
            damaged.append(problem)
        except OSError as error:
            raise ArchiveInvalid(
                f"The image in {self.layout} cannot be read", why=[str(error)]
            ) from error
        for blob in damaged:
            if blob.digest in self._removed:
                raise blob
            self._removed.add(blob.digest)
            remove(blob_path(self.layout, blob.digest))
        if damaged and self._portable:
            self._portable.distrust([blob.digest for blob in damaged])
        known.write(self.layout)
        self._holds = known.holds
        return not damaged

    def assemble(self) -> bool:
        """Write the image in the layout as an archive; False where there is no layout.

        Raises ArchiveInvalid, ArchiveNotWritten.
        """
        if not (self._output and self.layout and self._top):
            return False
        self._output.assemble(
            self.layout,
            self._top,
            names=self._settings.image,
            archive_format=self._settings.archive_format,
            holds=self._holds,
            done=self.end_draft(self._top.digest),
            check=self._check,
        )
        return True

    def wants_export(self, *, all_cached: bool) -> bool:
        """Whether the portable cache lacks something of what was built, for another solve."""
        found = self.state
        if found:
            if self._settings.cache_strategy == "state":
                return False
            is_new = self._is_exported or not (all_cached and self._was_exported)
            if not is_new and self._has_entry():
                self.exported()
                return False
        self._open_portable()
        assert self._portable  # noqa: S101 - for the type checker
        if not self._portable.wants_export(all_cached=all_cached and not found):
            return False
        if self._is_exported and self._takes_over():
            self.exported()
            return False
        with suppress(StateDamaged, TimedOut):
            self._tidying.forgotten(found)  # and once more, for there will be another solve
        if found:
            self._portable.serve(self._readers)
            if self.layout and self._top:
                nodes = reachable(self.layout, self._top)
                self._portable.add(self.layout, [node.descriptor for node in nodes])
        return True

    def keep_mounts(self, reach: Reach) -> None:
        """Carry chosen cache mounts in the portable cache, after steps have run."""
        if self._mounts:
            self._tidying.heard(True)
            self._mounts.keep(reach, state=self.state is not None)

    def exported(self) -> None:
        """The solve that exports has gone well."""
        if self.state:
            self.state.exported(self._tag)

    @property
    def export_imports(self) -> tuple[CacheImport, ...]:
        """What the solve that exports imports: the daemon may lack what it took from there."""
        return self._portable.imports if self._portable else ()

    @property
    def export(self) -> CacheExport | None:
        """Where a solve exports the portable cache to."""
        return self._portable.export if self._portable else None

    def heard(self, said: bool) -> None:
        """A solve is over in which steps have ``said`` something, or none has."""
        self._tidying.heard(said)

    def forget(self, endpoint: Endpoint) -> None:
        """Have the daemon forget what steps have said, while other things happen. Never raises.

        Once nothing else is solved.
        """
        if self.state:
            self._tidying.forget(self.state, endpoint)

    def tidy(self, endpoint: Endpoint | None, *, grown: bool) -> None:
        """See that the state stays within its bound.

        ``endpoint`` is that of the daemon, which still runs, None where it was asked nothing;
        ``grown`` is whether anything was built.
        """
        if self.state:
            bound = self._settings.cache_max_size
            images = partial(self._keep_images, bound)
            self._tidying.tidy(self.state, endpoint, bound=bound, images=images, grown=grown)

    def failed(self, endpoint: Endpoint) -> None:
        """The solve has failed for good: what it made may be of use to the next one."""
        self._top = None
        self._tidying.heard(True)
        self.tidy(endpoint, grown=True)
        if self._copies:
            self._copies.note()

    def merge(self) -> None:
        """Nothing is solved any more: what was exported gets into the portable cache."""
        if self._portable:
            self._portable.keep()

    def finish(self, *, grown: bool) -> None:
        """The daemon has ended: what it left is kept."""
        if self._copies:
            self._copies.note(self._made)
        if self.state:
            self.state.finish(grown=grown)
            remove_trees(self.state.remnants(), self._env)

    def end_draft(self, top: Digest | None = None) -> Draft:
        """What was written of the image ``top`` before it was there; of no other anything is."""
        found, self._draft = self._draft, None
        if not found:
            return {}
        done = found.finish(top, self._check) if top else found.finish()
        log.debug("the archive was begun before the solve", of_use=bool(done))
        return done

    def _begin_draft(self, request: SolveRequest) -> None:
        if not (self._output and self._images and self._copies and self._copies.unchanged):
            return
        last = self._images.last
        if last and self._settings.verify != "full" and not self._settings.no_cache:
            directory = self._images.directory
            if nodes := drafting.expected(directory, last, request):
                self._draft = Drafting(self._output.file.fileno(), directory, nodes)

    def _recall(self, made: Made, request: SolveRequest) -> bool:
        """Whether the image is that which was ``made`` last; it has been verified then.

        Not where the daemon has something to do besides.
        """
        found = self.state
        if not (found and found.tried and self._images and self._output):
            return False
        if self._removed or not recalling.is_wanted(self._settings) or found.records.due:
            return False
        if self._settings.cache_strategy == "auto" and not (
            self._was_exported and self._has_entry()
        ):
            return False
        with suppress(ArchiveInvalid, OSError):  # a solve may still mend it
            top = recalling.recalled(self._images, made, request, datetime.now(UTC))
            return top is not None and self.verify(top)
        return False

    @property
    def _made(self) -> Made | None:
        """What was made, if that can be told the next time without a solve."""
        if self._steps is None or not (self._images and isinstance(self._manifest, Manifest)):
            return None
        return Made(self._images.key, str(self._manifest.config.digest), self._steps)

    def _keep_images(self, bound: int) -> int:
        return self._images.keep(self._top, bound, self._check) if self._images and self._top else 0

    def _takes_over(self) -> bool:
        """Put what was exported with the image to where it is merged from, if it is there."""
        assert self._portable  # noqa: S101 - for the type checker
        if not self._images:
            return True
        if self._is_warm:
            self._portable.recognize(self._images.directory)
            return True
        return self._portable.take(self._images.directory)

    @property
    def _takes_part(self) -> bool:
        """Whether the portable cache takes part in the image's solve.

        As an import for a daemon that knows nothing yet, as an export where something is new.
        """
        if not self.state:
            return True
        if self._settings.cache_strategy == "state":
            return False
        same = self._images and self._images.last and self._copies and self._copies.unchanged
        return not (self._is_warm and same)

    @property
    def _doubt(self) -> str:
        return self._copies.doubt if self._copies else ""

    @property
    def _is_warm(self) -> bool:
        return self.state is not None and self.state.warm

    @property
    def _own(self) -> list[Path]:
        """What the builder itself writes, maybe within the context."""
        own = [self._paths.build / self._settings.archive_name]
        return [*own, self._paths.cache] if self._paths.cache else own

    @property
    def _tag(self) -> str:
        paths = self._paths
        try:
            dockerfile = (paths.dockerfile_dir / paths.dockerfile_name).read_bytes()
        except OSError:
            dockerfile = b""
        return identity(self._settings, dockerfile)

    def _has_entry(self) -> bool:
        """Whether the portable cache knows this image, at a glance."""
        cache = self._paths.cache
        with suppress(OSError):
            return cache is not None and any(
                index.tag_of(entry) == self._tag
                for entry in index.read(cache / staging.LAYOUT).entries
            )
        return False

    def _open_portable(self) -> None:
        if not self._portable:
            self._portable = self._stack.enter_context(
                portable.opened(self._settings, self._paths, self._check)
            )
