"""What this node says of itself, and in which version."""

from dataclasses import replace

from p2pnode.membership.records import (
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
    """

    def __init__(self, signer: Signer, swarm_tag: bytes, first: Record) -> None:
        self._signer = signer
        self._swarm_tag = swarm_tag
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
        self._sign(replace(self.record, incarnation=self.record.incarnation + 1))

    def change(self, addresses: tuple[Address, ...], ad: bytes) -> None:
        """Say something else in a new version."""
        incarnation = self.record.incarnation + 1
        self._sign(replace(self.record, incarnation=incarnation, addresses=addresses, ad=ad))

    def leave(self) -> None:
        """Say goodbye: the last version of this life."""
        incarnation = self.record.incarnation + 1
        self._sign(replace(self.record, incarnation=incarnation, addresses=(), ad=b"", left=True))

    def outdo(self, former: Record) -> None:
        """Go beyond a record of ours that we do not remember signing.

        A former life signed it, and the clock that boot epochs come from went back since; or our
        key is in use twice. Either way others hold it newer than ours until we surpass it.
        """
        self._sign(replace(self.record, boot_epoch=former.boot_epoch + 1, incarnation=0))

    def _sign(self, record: Record) -> None:
        self.signed = sign_record(record, self._signer, self._swarm_tag)
