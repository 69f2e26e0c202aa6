"""The decision which keys may be pinned: a table, and properties over everything a host could show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.enrolment import HostKey, Standing, judge, twins


def key(keytype: str, which: str) -> HostKey:
    return HostKey(keytype, f"{keytype}-{which}", f"SHA256:{keytype}-{which}")


ED, EC, RSA = key("ssh-ed25519", "a"), key("ecdsa-sha2-nistp256", "a"), key("ssh-rsa", "a")
ED2, EC2, RSA2 = key("ssh-ed25519", "b"), key("ecdsa-sha2-nistp256", "b"), key("ssh-rsa", "b")


def test_a_new_host_may_be_pinned_with_all_that_it_shows_but_nothing_vouches_for_it() -> None:
    found = judge([], [ED, EC, RSA])
    assert (found.standing, found.pin, found.vouched) == (Standing.NEW, (ED, EC, RSA), False)


def test_a_fingerprint_vouches_for_its_own_key_and_for_no_other() -> None:
    found = judge([], [ED, EC, RSA], EC.fingerprint)
    assert (found.standing, found.pin, found.vouched) == (Standing.NEW, (EC,), True)


def test_a_fingerprint_that_no_key_has_refuses_a_new_host() -> None:
    assert judge([], [ED, EC], RSA.fingerprint).standing is Standing.MISMATCH


def test_a_wrong_fingerprint_refuses_also_a_host_that_shows_its_pinned_key() -> None:
    assert judge([ED], [ED], ED2.fingerprint).standing is Standing.MISMATCH


def test_a_host_that_shows_its_pinned_key_is_unchanged_whatever_other_types_it_shows() -> None:
    found = judge([ED], [ED, EC, RSA])
    assert (found.standing, found.pin) == (Standing.UNCHANGED, (ED,))


def test_a_host_may_retire_a_key_type() -> None:
    assert judge([ED, RSA], [ED]).standing is Standing.UNCHANGED


def test_another_key_of_a_pinned_type_is_a_change_even_beside_one_that_fits() -> None:
    found = judge([ED, RSA], [ED, RSA2])
    assert (found.standing, found.was, found.now) == (Standing.CHANGED, (RSA,), (RSA2,))
    assert "ssh-rsa key is not the pinned one" in found.because


def test_only_other_types_than_the_pinned_ones_is_a_change() -> None:
    found = judge([ED], [EC, RSA])
    assert (found.standing, found.was, found.now) == (Standing.CHANGED, (ED,), (EC, RSA))
    assert "no longer shows its pinned ssh-ed25519 key" in found.because


def test_replace_without_a_fingerprint_replaces_nothing() -> None:
    assert judge([ED], [ED2], replace=True).standing is Standing.CHANGED


def test_replace_with_the_fingerprint_of_the_new_key_pins_that_key_alone() -> None:
    found = judge([ED, RSA], [ED2, EC2], ED2.fingerprint, replace=True)
    assert (found.standing, found.pin, found.was) == (Standing.REPLACED, (ED2,), (ED, RSA))


def test_a_fingerprint_without_replace_does_not_replace() -> None:
    assert judge([ED], [ED2], ED2.fingerprint).standing is Standing.CHANGED


def test_a_fingerprint_adds_a_key_type_to_a_known_host() -> None:
    found = judge([ED], [ED, RSA], RSA.fingerprint)
    assert (found.standing, found.pin, found.vouched) == (Standing.NEW, (ED, RSA), True)


def test_a_host_that_shows_nothing_is_refused() -> None:
    assert judge([], []).refused


def test_hosts_with_one_key_are_told_apart_from_hosts_with_their_own() -> None:
    assert twins({"one": [ED, RSA], "two": [ED, RSA2], "three": [ED2]}) == (("one", "two", ED),)


_KEYS = st.lists(
    st.sampled_from([ED, EC, RSA, ED2, EC2, RSA2]), unique_by=lambda each: each.keytype, max_size=3
)
_EXPECTED = st.one_of(st.none(), st.sampled_from([each.fingerprint for each in (ED, EC2, RSA, RSA2)]))


@given(known=_KEYS, shown=_KEYS, expected=_EXPECTED, replace=st.booleans())
def test_nothing_is_ever_pinned_against_the_rules(
    known: list[HostKey], shown: list[HostKey], expected: str | None, replace: bool
) -> None:
    found = judge(known, shown, expected, replace=replace)
    assert found.because
    if found.refused:
        assert not found.pin and not found.writes
        return
    assert set(found.pin) <= {*known, *shown}
    assert set(found.pin) & set(shown), "what is pinned afterwards lets labctl connect"
    if found.writes:
        fresh = set(found.pin) - set(known)
        if expected:
            # None is fresh when the vouched key was pinned already and the others gave way.
            assert {each.fingerprint for each in fresh} <= {expected}
            assert expected in {each.fingerprint for each in found.pin}
        else:
            assert not known and not found.vouched
    if known and not set(known) & set(shown):
        assert replace and expected, "a pinned key gave way without a person's word for it"
