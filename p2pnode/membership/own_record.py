"""What this node says of itself, and in which version."""

from dataclasses import replace

from p2pnode.membership.records import (
    LAST_BOOT_EPOCH,
    LAST_INCARNATION,
    Claim,
    Record,
    SignedClaim,
    SignedRecord,
    Signer,
    Version,
    sign_claim,
    sign_record,
)
from p2pnode.sansio import Address


class OwnRecord:
    """Our own record: only we may change it, and every change is a new, signed version.

    Attributes:
        signed: The record as it is told to others.
        rival: A newer record of ours that we did not sign, and have not outdone yet.
    """

    def __init__(self, signer: Signer, swarm_tag: bytes, first: Record) -> None:
        self._signer = signer
        self._swarm_tag = swarm_tag
        self.rival: Record | None = None
        self.signed: SignedRecord = sign_record(first, signer, swarm_tag)

    @property
    def record(self) -> Record:
        return self.signed.record

    @property
    def version(self) -> Version:
        return self.record.version

    def sign_claim(self, claim: Claim) -> SignedClaim:
        """Sign what we say of another."""
        return sign_claim(claim, self._signer, self._swarm_tag)

    def renew(self) -> None:
        """Say the same in a new version: the refutation of whatever is said about this one."""
        self._sign(self._next())

    def change(self, addresses: tuple[Address, ...], ad: bytes) -> None:
        """Say something else in a new version."""
        self._sign(replace(self._next(), addresses=addresses, ad=ad))

    def leave(self) -> None:
        """Announce our departure: the last version of this life."""
        self._sign(replace(self._next(), addresses=(), ad=b"", left=True))

    def outdo(self, former: Record) -> bool:
        """Go beyond a record of ours that we do not remember signing.

        A former life signed it, and the clock that boot epochs come from went back since; or our
        key is in use twice. Either way others hold it newer than ours until we surpass it. Return
        whether there is a version beyond it.
        """
        self.rival = None
        if former.boot_epoch < LAST_BOOT_EPOCH:
            version = Version(former.boot_epoch + 1, 0)
        elif former.incarnation < LAST_INCARNATION and not former.left:
            version = Version(former.boot_epoch, former.incarnation + 1)
        else:
            return False
        self._sign(replace(self.record, **version._asdict()))
        return True

    def _next(self) -> Record:
        """Return our record with the next version, of the next life if this one is used up."""
        version = self.version
        if version.incarnation < LAST_INCARNATION:
            version = version._replace(incarnation=version.incarnation + 1)
        elif version.boot_epoch < LAST_BOOT_EPOCH:
            version = Version(version.boot_epoch + 1, 0)
        return replace(self.record, **version._asdict())

    def is_surpassed_by(self, record: Record) -> bool:
        """Return whether a record of ours is newer than all that we know of."""
        if self.record.left:
            return False
        newest = self.rival or self.record
        if record.version == newest.version:
            return record.left and not newest.left
        return record.version > newest.version

    def _sign(self, record: Record) -> None:
        self.rival = None
        self.signed = sign_record(record, self._signer, self._swarm_tag)
