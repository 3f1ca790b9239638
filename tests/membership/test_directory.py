"""The directory says what the table says, whatever changes, and reads each ad once."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pnode.membership.directory import Directory, Line, head_of
from p2pnode.membership.health import Health
from p2pnode.membership.members import Member
from p2pnode.membership.records import Record
from p2pnode.sansio import NodeId


class ToyTable:
    """A table that changes as it is told; ads are ``name/space`` in ASCII, or nonsense."""

    def __init__(self, room: int = 1000) -> None:
        self.lines: dict[NodeId, Member] = {}
        self.log: list[NodeId] = []
        self.reads = 0
        self._room = room

    @property
    def members_version(self) -> int:
        return len(self.log)

    def members_changed_since(self, version: int) -> list[NodeId] | None:
        if len(self.log) - version > self._room:
            return None
        return list(dict.fromkeys(self.log[version:]))

    def member(self, node_id: NodeId) -> Member | None:
        self.reads += 1
        return self.lines.get(node_id)

    def members(self) -> list[Member]:
        self.reads += len(self.lines)
        return list(self.lines.values())

    def put(self, node_id: NodeId, ad: bytes, now: float = 0.0) -> None:
        self.lines[node_id] = Member(Record(node_id, 0, 1, (), ad), Health.ALIVE, now, "")
        self.log.append(node_id)

    def believe(self, node_id: NodeId, health: Health, now: float) -> None:
        self.lines[node_id] = replace(self.lines[node_id], health=health, since=now)
        self.log.append(node_id)

    def drop(self, node_id: NodeId) -> None:
        del self.lines[node_id]
        self.log.append(node_id)


def decode(ad: bytes) -> tuple[str, int] | None:
    name, _, space = ad.decode().partition("/")
    return (name, int(space)) if space else None


def directory(table: ToyTable) -> Directory[tuple[str, int]]:
    return Directory(table, decode, lambda ad: ad[0], lambda ad: (ad[1],))


def node_id(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


A, B, C = node_id(0xCA), node_id(0xB0), node_id(0xC0)


def test_an_ad_is_read_once_whatever_else_changes() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"kitchen/1")
    for now in range(5):
        assert known.name_of(A) == "kitchen"
        table.believe(A, Health(now % 2), float(now))
        assert [line.member.health for line in known] == [Health(now % 2)]
    assert known.decoded == 1
    table.put(A, b"attic/1")
    assert known.name_of(A) == "attic"
    assert known.decoded == 2


def test_a_question_costs_what_changed_and_not_what_there_is() -> None:
    table = ToyTable()
    known = directory(table)
    for number in range(1, 200):
        table.put(node_id(number), f"n{number}/1".encode())
    assert len(known) == 199
    before = table.reads
    for number in range(1, 200):
        assert known.name_of(node_id(number)) == f"n{number}"
        assert known.find(f"n{number}") == [node_id(number)]
    assert table.reads == before
    table.put(A, b"other/2")
    assert known.name_of(A) == "other"
    assert table.reads == before + 1


def test_an_exact_name_wins_over_the_head_of_a_key() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"kitchen/1")
    table.put(B, b"caca/1")  # what the key of A begins with
    assert known.find("caca") == [B]
    assert known.find("cacac") == [A]
    assert known.find("CACAC") == [A]
    assert known.find("kitchen") == [A]
    assert known.find("nobody") == []
    assert known.find("") == []


def test_two_of_one_name_are_told_apart_by_their_keys() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"pi/1")
    assert known.label_of(A) == "pi"
    table.put(B, b"pi/1")
    assert known.find("pi") == [A, B]
    assert [known.label_of(peer) for peer in (A, B)] == ["pi (cacacaca)", "pi (b0b0b0b0)"]


def test_whoever_is_unknown_or_unreadable_is_called_by_its_key() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"nonsense")
    assert known.name_of(A) == "cacacaca"
    assert known.name_of(B) == head_of(B)
    assert known.find("cac") == [A]


def test_whoever_says_goodbye_keeps_its_name_and_is_not_found_by_it() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"kitchen/1")
    assert known.name_of(A) == "kitchen"
    table.put(A, b"")
    assert known.name_of(A) == "kitchen"
    assert known.find("kitchen") == []
    table.put(B, b"kitchen/1")
    assert known.find("kitchen") == [B]
    assert known.label_of(B) == "kitchen"


def test_it_remembers_since_when_it_has_known_a_node() -> None:
    table = ToyTable()
    known = directory(table)
    table.put(A, b"a/1", now=5.0)
    assert [line.met for line in known] == [5.0]
    table.believe(A, Health.SUSPECT, 7.0)
    table.put(A, b"b/1", now=9.0)
    assert [line.met for line in known] == [5.0]
    table.drop(A)
    assert not len(known)
    table.put(A, b"b/1", now=11.0)
    assert [line.met for line in known] == [11.0]


class Following(RuleBasedStateMachine):
    """A directory against one that reads the whole table each time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ToyTable(room=6)
        self.known = directory(self.table)
        self.now = 0.0

    @rule(who=st.integers(1, 6), name=st.sampled_from("abc"), space=st.integers(0, 2))
    def put(self, who: int, name: str, space: int) -> None:
        self.now += 1
        self.table.put(node_id(who), f"{name}/{space}".encode(), self.now)

    @rule(who=st.integers(1, 6))
    def garble(self, who: int) -> None:
        self.now += 1
        self.table.put(node_id(who), b"nonsense", self.now)

    @rule(who=st.integers(1, 6), health=st.sampled_from(Health))
    def believe(self, who: int, health: Health) -> None:
        self.now += 1
        if node_id(who) in self.table.lines:
            self.table.believe(node_id(who), health, self.now)

    @rule(who=st.integers(1, 6))
    def drop(self, who: int) -> None:
        if node_id(who) in self.table.lines:
            self.table.drop(node_id(who))

    @rule()
    def look(self) -> None:
        len(self.known)

    @rule()
    def compare(self) -> None:
        fresh = directory(self.table)
        assert {line.peer: (line.member, line.ad, _name(line)) for line in self.known} == {
            line.peer: (line.member, line.ad, _name(line)) for line in fresh
        }
        for name in "abc":
            assert sorted(self.known.named(name)) == sorted(fresh.named(name))
        for space in range(3):
            ours = {line.peer for line in self.known.of_space(space)}
            assert ours == {line.peer for line in fresh.of_space(space)}

    @invariant()
    def no_index_keeps_the_gone(self) -> None:
        lines = self.known._lines
        for index in (self.known._by_name, self.known._by_space):
            assert all(peers and set(peers) <= set(lines) for peers in index.values())


TestFollowing = Following.TestCase


def _name(line: Line[tuple[str, int]]) -> str:
    """Return a line's name; one that it has left over from an earlier ad is not compared."""
    return "" if line.ad is None else line.name
