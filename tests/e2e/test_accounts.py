"""Accounts of users, as users and partners see them from outside."""

import re
import uuid
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, Platform, User, World, assert_refused, made

FIELDS = {
    *("id", "user_id", "type", "account_number_masked", "ifsc", "holder_name", "provider_name", "is_primary"),
    *("verification_status", "verification_reference", "status", "shared_with_other_users", "created_at", "updated_at"),
}
BANK = {"type": "BANK", "account_number": "123456789012", "ifsc": "HDFC0001234"}
BANK_NUMBER = {name: BANK[name] for name in ("account_number", "ifsc")}
UPI = {"type": "UPI", "account_number": "ravi.kumar@okbank"}
WALLET = {"type": "WALLET", "account_number": "9876543210", "provider_name": "Paytm"}
OTHER = {"type": "OTHER", "account_number": "PF/KA/4711", "provider_name": "EPFO"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
REASON = {"reason": "Asked for by the user."}


@pytest.fixture(scope="module")
def platform(world: World) -> Platform:
    """The platform of users whose platform does not matter."""
    return world.platform()


@pytest.fixture
def user(world: World, platform: Platform) -> User:
    """An active user without accounts."""
    return world.user(platform)


@pytest.fixture(scope="module")
def loner(world: World, platform: Platform) -> User:
    """An active user who gets no accounts."""
    return world.user(platform)


def accounts_of(user: User) -> str:
    return f"{user.path}/accounts"


def path_of(account: dict[str, Any]) -> str:
    return f"/users/{account['user_id']}/accounts/{account['id']}"


def stored(user: User, body: dict[str, Any], caller: Caller | None = None) -> dict[str, Any]:
    """Store an account and return it."""
    return made((caller or user.caller).post(accounts_of(user), body), 201)


def listed(user: User, caller: Caller | None = None) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = made((caller or user.caller).get(accounts_of(user)), 200)["items"]
    return items


def primaries_of(user: User) -> list[str]:
    return [account["id"] for account in listed(user) if account["is_primary"]]


def fields_at_fault(response: httpx.Response) -> list[str]:
    return [detail["field"] for detail in response.json()["error"]["details"]]


class TestCreateAccount:
    def test_stores_an_account_with_the_required_fields(self, user: User) -> None:
        response = user.caller.post(accounts_of(user), BANK)
        account = made(response, 201)
        assert set(account) == FIELDS
        assert account == {
            **dict.fromkeys(FIELDS),
            "id": account["id"],
            "user_id": user.id,
            "type": "BANK",
            "account_number_masked": "••••9012",
            "ifsc": "HDFC0001234",
            "is_primary": True,
            "verification_status": "unverified",
            "status": "active",
            "created_at": account["created_at"],
            "updated_at": account["created_at"],
        }
        assert uuid.UUID(account["id"]).version == 7
        assert TIME.fullmatch(account["created_at"])
        assert response.headers["location"] == path_of(account)
        assert response.headers["cache-control"] == "no-store"
        assert made(user.caller.get(response.headers["location"]), 200) == account

    def test_takes_all_optional_fields(self, user: User) -> None:
        optional = {"holder_name": "Ravi Kumar", "provider_name": "HDFC Bank", "is_primary": True}
        account = stored(user, {**BANK, **optional})
        assert {name: account[name] for name in optional} == optional

    def test_takes_null_for_optional_fields(self, user: User) -> None:
        account = stored(user, {**UPI, "ifsc": None, "holder_name": None, "provider_name": None})
        assert [account[name] for name in ("ifsc", "holder_name", "provider_name")] == [None] * 3

    @pytest.mark.parametrize(
        ("body", "masked"),
        [
            ({**BANK, "account_number": "123456789"}, "••••6789"),
            ({**BANK, "account_number": "123456789012345678"}, "••••5678"),
            (UPI, "••••bank"),
            (WALLET, "••••3210"),
            (OTHER, "••••4711"),
        ],
    )
    def test_takes_every_type_and_masks_its_number(self, user: User, body: dict[str, Any], masked: str) -> None:
        for caller in (user.caller, user.platform.partner):
            response = caller.post(accounts_of(user), body)
            account = made(response, 201)
            assert (account["type"], account["account_number_masked"]) == (body["type"], masked)
            answers = [response, caller.get(path_of(account)), caller.get(accounts_of(user))]
            answers.append(caller.patch(path_of(account), {"holder_name": "Ravi"}))
            assert not any(body["account_number"] in answer.text for answer in answers)
            assert caller.delete(path_of(account)).status_code == 204

    def test_lets_the_partner_store_for_its_user(self, world: World) -> None:
        user = world.user()
        account = stored(user, BANK, user.platform.partner)
        assert account["shared_with_other_users"] is False
        assert listed(user) == [{**account, "shared_with_other_users": None}]

    @pytest.mark.parametrize("field", ["type", "account_number"])
    @pytest.mark.parametrize("is_null", [False, True])
    def test_requires_type_and_number(self, loner: User, field: str, is_null: bool) -> None:
        body = {name: value for name, value in BANK.items() if name != field}
        response = loner.caller.post(accounts_of(loner), {**body, field: None} if is_null else body)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("type", "bank"),
            ("type", "CARD"),
            ("account_number", 123456789012),
            ("account_number", ""),
            ("account_number", "1234567890\u200d12"),
            ("account_number", "12345678\u0000"),
            ("ifsc", 7),
            ("holder_name", ""),
            ("holder_name", "a" * 5000),
            ("is_primary", "true"),
            ("is_primary", 1),
            ("is_primary", None),
            ("id", UNKNOWN),
            ("user_id", UNKNOWN),
            ("status", "active"),
            ("account_number_masked", "••••9012"),
            ("shared_with_other_users", True),
            ("updated_at", "2026-11-20T09:30:00Z"),
            ("branch", "MG Road"),
        ],
    )
    def test_rejects_wrong_shapes(self, loner: User, field: str, value: object) -> None:
        for caller in (loner.caller, loner.platform.partner):
            response = caller.post(accounts_of(loner), {**BANK, field: value})
            assert_refused(response, 422, "RQ-101")
            assert fields_at_fault(response) == [field]
        assert listed(loner) == []

    @pytest.mark.parametrize(
        ("body", "at_fault"),
        [
            *(
                ({**BANK, "account_number": number}, "account_number")
                for number in (
                    "12345678",
                    "1234567890123456789",
                    "12345678901a",
                    "1234 5678 9012",
                    "१२३४५६७८९०",
                    "-23456789",
                )
            ),
            *(
                ({**BANK, "ifsc": ifsc}, "ifsc")
                for ifsc in ("HDFC1001234", "HDF00001234", "hdfc0001234", "HDFC000123", "HDFC00012345", "HDFC0-01234")
            ),
            ({**BANK, "ifsc": None}, "ifsc"),
            ({"type": "BANK", "account_number": "123456789012"}, "ifsc"),
            *(
                ({**UPI, "account_number": address}, "account_number")
                for address in ("meena", "@oksbi", "meena@", "meena@ok@sbi", "meena rao@oksbi", "123456789012")
            ),
        ],
    )
    def test_rejects_broken_rules(self, loner: User, body: dict[str, Any], at_fault: str) -> None:
        response = loner.caller.post(accounts_of(loner), body)
        assert_refused(response, 422, "AC-802")
        assert fields_at_fault(response) == [at_fault]
        assert body["account_number"] not in response.text
        assert listed(loner) == []

    def test_prefers_the_shape_when_a_rule_is_broken_too(self, loner: User) -> None:
        response = loner.caller.post(accounts_of(loner), {**BANK, "ifsc": "?", "is_primary": "yes"})
        assert_refused(response, 422, "RQ-101")

    @pytest.mark.parametrize("body", [BANK, UPI, WALLET, OTHER])
    def test_rejects_the_same_account_twice(self, user: User, body: dict[str, Any]) -> None:
        account = stored(user, body)
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.post(accounts_of(user), {**body, "holder_name": "R. Kumar"}), 409, "AC-803")
        assert listed(user) == [account]

    def test_holds_upi_addresses_in_capitals_to_be_the_same(self, user: User) -> None:
        stored(user, UPI)
        assert_refused(
            user.caller.post(accounts_of(user), {**UPI, "account_number": "Ravi.Kumar@OKBANK"}), 409, "AC-803"
        )

    def test_leaves_the_primary_when_the_new_one_is_refused(self, user: User) -> None:
        first, second = stored(user, BANK), stored(user, UPI)
        assert_refused(user.caller.post(accounts_of(user), {**UPI, "is_primary": True}), 409, "AC-803")
        assert primaries_of(user) == [first["id"]]
        assert second["is_primary"] is False

    def test_allows_families_to_share_an_account_and_tells_the_partner(self, world: World) -> None:
        user, stranger = world.user(), world.user()
        relative, partner = world.user(user.platform), user.platform.partner
        own = stored(user, BANK, partner)
        assert own["shared_with_other_users"] is False
        # Another platform's users are nobody's business.
        stored(stranger, BANK)
        assert made(partner.get(path_of(own)), 200)["shared_with_other_users"] is False
        theirs = stored(relative, BANK, partner)
        assert theirs["shared_with_other_users"] is True
        for account in (own, theirs):
            assert made(partner.get(path_of(account)), 200)["shared_with_other_users"] is True
        assert [account["shared_with_other_users"] for account in listed(user, partner)] == [True]
        changed = made(partner.patch(path_of(own), {"holder_name": "Ravi"}), 200)
        assert changed["shared_with_other_users"] is True
        assert made(user.caller.get(path_of(own)), 200)["shared_with_other_users"] is None
        assert [account["shared_with_other_users"] for account in listed(relative)] == [None]
        assert relative.caller.delete(path_of(theirs)).status_code == 204
        assert made(partner.get(path_of(own)), 200)["shared_with_other_users"] is False

    @pytest.mark.parametrize("field", ["verification_status", "verification_reference"])
    def test_lets_no_user_set_the_verification(self, user: User, field: str) -> None:
        value = "verified" if field == "verification_status" else "UTR4711"
        response = user.caller.post(accounts_of(user), {**BANK, field: value})
        assert_refused(response, 422, "AC-802")
        assert fields_at_fault(response) == [field]

    def test_makes_the_first_primary_and_the_next_only_when_asked(self, user: User) -> None:
        first = stored(user, {**BANK, "is_primary": False})
        assert first["is_primary"] is True
        second = stored(user, UPI)
        assert second["is_primary"] is False
        third = stored(user, {**WALLET, "is_primary": True})
        assert third["is_primary"] is True
        assert primaries_of(user) == [third["id"]]
        assert made(user.caller.get(path_of(first)), 200)["is_primary"] is False

    def test_stores_once_for_an_idempotency_key(self, world: World, user: User) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = user.caller.post(accounts_of(user), BANK, headers=headers)
        again = user.caller.post(accounts_of(user), BANK, headers=headers)
        assert made(again, 201) == made(first, 201)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        assert_refused(user.caller.post(accounts_of(user), UPI, headers=headers), 422, "RQ-108")
        # The partner is another caller, and the other user's is another path.
        relative = world.user(user.platform)
        assert_refused(user.platform.partner.post(accounts_of(user), BANK, headers=headers), 409, "AC-803")
        assert stored(relative, BANK)["id"] != first.json()["id"]

    def test_replays_for_every_key_of_the_platform(self, world: World, user: User) -> None:
        created = world.admin.post(f"/platforms/{user.platform.id}/api_keys", {"name": "second"})
        other_key = world.caller({"api-key": made(created, 201)["secret"]})
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = user.platform.partner.post(accounts_of(user), BANK, headers=headers)
        again = other_key.post(accounts_of(user), BANK, headers=headers)
        assert made(again, 201) == made(first, 201)
        assert again.headers["idempotency-replayed"] == "true"


class TestAccess:
    def calls(self, account: dict[str, Any]) -> list[tuple[str, str, Any]]:
        accounts = f"/users/{account['user_id']}/accounts"
        return [
            ("GET", accounts, None),
            ("POST", accounts, UPI),
            ("GET", f"{accounts}/{account['id']}", None),
            ("PATCH", f"{accounts}/{account['id']}", {"holder_name": "Ravi"}),
            ("DELETE", f"{accounts}/{account['id']}", None),
        ]

    def test_rejects_all_but_the_user_and_its_partner(self, world: World, user: User) -> None:
        account = stored(user, BANK)
        other_user, other_platform = world.user(user.platform), world.platform()
        onboarding = world.user(user.platform, is_active=False)
        for method, path, body in self.calls(account):
            for caller, status, code in (
                (world.caller(), 401, "AU-201"),
                (world.admin, 403, "AU-204"),
                (other_user.caller, 403, "AU-206"),
                (onboarding.caller, 403, "AU-207"),
                (other_platform.partner, 404, "US-401"),
            ):
                assert_refused(caller.request(method, path, json=body), status, code)
        assert listed(user) == [account]

    @pytest.mark.parametrize("user_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_users(self, platform: Platform, user_id: str) -> None:
        for method, path, body in self.calls({"id": UNKNOWN, "user_id": user_id}):
            assert_refused(platform.partner.request(method, path, json=body), 404, "US-401")

    @pytest.mark.parametrize("account_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_accounts(self, loner: User, account_id: str) -> None:
        for caller in (loner.caller, loner.platform.partner):
            for method, path, body in self.calls({"id": account_id, "user_id": loner.id})[2:]:
                assert_refused(caller.request(method, path, json=body), 404, "AC-801")

    def test_hides_accounts_of_others_behind_another_users_path(self, world: World, user: User) -> None:
        account = stored(user, BANK)
        other = world.user(user.platform)
        for caller in (other.caller, user.platform.partner):
            for method, path, body in self.calls({**account, "user_id": other.id})[2:]:
                assert_refused(caller.request(method, path, json=body), 404, "AC-801")
        assert listed(user) == [account]

    def test_rejects_partners_writes_for_users_who_are_not_active(self, world: World, user: User) -> None:
        partner = user.platform.partner
        onboarding = world.user(user.platform, is_active=False)
        assert_refused(partner.post(accounts_of(onboarding), BANK), 409, "US-404")
        assert listed(onboarding, partner) == []
        account = stored(user, BANK, partner)
        assert user.caller.delete(user.path).status_code == 204
        for method, path, body in self.calls(account):
            if method != "GET":
                assert_refused(partner.request(method, path, json=body), 409, "US-404")
        # Reads always work.
        assert listed(user, partner) == [account]
        assert made(partner.get(path_of(account)), 200) == account
        made(world.admin.post(f"{user.path}/reactivate", REASON), 200)
        made(partner.patch(path_of(account), {"holder_name": "Ravi"}), 200)


class TestListAccounts:
    def test_answers_newest_first(self, user: User) -> None:
        accounts = [stored(user, body) for body in (BANK, UPI, WALLET)]
        response = user.caller.get(accounts_of(user))
        assert made(response, 200) == {"items": list(reversed(accounts)), "next_page_token": None}
        assert response.headers["cache-control"] == "no-store"

    def test_walks_pages(self, user: User) -> None:
        accounts = [stored(user, body) for body in (BANK, UPI, WALLET, OTHER)]
        for caller in (user.caller, user.platform.partner):
            seen: list[str] = []
            params: dict[str, Any] = {"page_size": 3}
            while params.get("page_token", "") is not None:
                page = made(caller.get(accounts_of(user), params=params), 200)
                seen += [item["id"] for item in page["items"]]
                params["page_token"] = page["next_page_token"]
            assert seen == [account["id"] for account in reversed(accounts)]

    def test_rejects_tokens_of_other_lists(self, world: World, user: User) -> None:
        for body in (BANK, UPI):
            stored(user, body)
        token = made(user.caller.get(accounts_of(user), params={"page_size": 1}), 200)["next_page_token"]
        other = world.user(user.platform)
        for caller, path in (
            (user.platform.partner, accounts_of(user)),
            (other.caller, accounts_of(other)),
            (user.caller, f"{user.path}/dependants"),
        ):
            assert_refused(caller.get(path, params={"page_token": token}), 400, "RQ-113")

    @pytest.mark.parametrize("query", ["page_size=0", "page_size=a", "type=BANK", "status=removed"])
    def test_rejects_wrong_queries(self, loner: User, query: str) -> None:
        assert_refused(loner.caller.get(f"{accounts_of(loner)}?{query}"), 422, "RQ-101")


class TestUpdateAccount:
    def test_changes_what_is_written(self, user: User) -> None:
        account = stored(user, BANK)
        fields = {"holder_name": "Ravi Kumar", "provider_name": "HDFC Bank", "ifsc": "HDFC0004321"}
        changed = made(user.caller.patch(path_of(account), {**fields, "account_number": "987654321098"}), 200)
        assert changed == {
            **account,
            **fields,
            "account_number_masked": "••••1098",
            "updated_at": changed["updated_at"],
        }
        assert changed["updated_at"] > account["updated_at"]
        assert made(user.caller.get(path_of(account)), 200) == changed

    def test_tells_absent_from_null(self, user: User) -> None:
        account = stored(user, {**WALLET, "holder_name": "Ravi"})
        changed = made(user.caller.patch(path_of(account), {"holder_name": None}), 200)
        assert (changed["holder_name"], changed["provider_name"]) == (None, "Paytm")

    def test_answers_the_present_state_when_nothing_changes(self, user: User) -> None:
        account = stored(user, {**BANK, "holder_name": "Ravi"})
        for body in ({}, {"holder_name": "Ravi"}, {"account_number": BANK["account_number"], "is_primary": True}):
            assert made(user.caller.patch(path_of(account), body), 200) == account

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"type": "UPI"}, "RQ-101"),
            ({"id": UNKNOWN}, "RQ-101"),
            ({"status": "removed"}, "RQ-101"),
            ({"account_number": None}, "RQ-101"),
            ({"is_primary": None}, "RQ-101"),
            ({"verification_status": "unknown"}, "RQ-101"),
            ({"account_number": "12"}, "AC-802"),
            ({"ifsc": "?"}, "AC-802"),
            ({"ifsc": None}, "AC-802"),
        ],
    )
    def test_rejects_what_creation_rejects(self, user: User, body: dict[str, Any], code: str) -> None:
        account = stored(user, BANK)
        assert_refused(user.caller.patch(path_of(account), body), 422, code)
        assert listed(user) == [account]

    def test_rejects_becoming_an_account_that_is_there(self, user: User) -> None:
        stored(user, BANK)
        other = stored(user, {**BANK, "account_number": "987654321098"})
        assert_refused(user.caller.patch(path_of(other), {"account_number": BANK["account_number"]}), 409, "AC-803")

    def test_takes_the_primary_from_the_old_one(self, user: User) -> None:
        first, second = stored(user, BANK), stored(user, UPI)
        changed = made(user.caller.patch(path_of(second), {"is_primary": True}), 200)
        assert changed["is_primary"] is True
        assert primaries_of(user) == [second["id"]]
        made(user.platform.partner.patch(path_of(first), {"is_primary": True}), 200)
        assert primaries_of(user) == [first["id"]]

    def test_never_leaves_a_user_without_primary(self, user: User) -> None:
        account = stored(user, BANK)
        response = user.caller.patch(path_of(account), {"is_primary": False})
        assert_refused(response, 422, "AC-802")
        assert primaries_of(user) == [account["id"]]

    @pytest.mark.parametrize("status", ["verified", "failed"])
    def test_lets_the_partner_set_the_verification(self, user: User, status: str) -> None:
        account = stored(user, BANK)
        fields = {"verification_status": status, "verification_reference": "UTR4711"}
        made(user.platform.partner.patch(path_of(account), fields), 200)
        seen = made(user.caller.get(path_of(account)), 200)
        assert {name: seen[name] for name in fields} == fields

    @pytest.mark.parametrize(
        "body",
        [
            {"verification_status": "verified"},
            {"verification_status": "unverified"},
            {"verification_reference": "UTR4711"},
            {"verification_reference": None},
        ],
    )
    def test_lets_no_user_set_the_verification(self, user: User, body: dict[str, Any]) -> None:
        account = stored(user, BANK)
        fields = {"verification_status": "failed", "verification_reference": "UTR1"}
        made(user.platform.partner.patch(path_of(account), fields), 200)
        response = user.caller.patch(path_of(account), body)
        assert_refused(response, 422, "AC-802")
        assert fields_at_fault(response) == list(body)
        seen = made(user.caller.get(path_of(account)), 200)
        assert {name: seen[name] for name in fields} == fields

    @pytest.mark.parametrize("body", [{"account_number": "987654321098"}, {"ifsc": "HDFC0004321"}])
    def test_resets_the_verification_with_number_or_ifsc(self, user: User, body: dict[str, Any]) -> None:
        account = stored(user, BANK)
        verified = {"verification_status": "verified", "verification_reference": "UTR4711"}
        for caller in (user.caller, user.platform.partner):
            made(user.platform.partner.patch(path_of(account), {**BANK_NUMBER, **verified}), 200)
            changed = made(caller.patch(path_of(account), body), 200)
            assert (changed["verification_status"], changed["verification_reference"]) == ("unverified", None)

    def test_keeps_the_verification_with_other_changes(self, user: User) -> None:
        account = stored(user, BANK)
        made(user.platform.partner.patch(path_of(account), {"verification_status": "verified"}), 200)
        changed = made(user.caller.patch(path_of(account), {**BANK_NUMBER, "holder_name": "Ravi"}), 200)
        assert changed["verification_status"] == "verified"


class TestDeleteAccount:
    def test_takes_it_out_of_lists_and_paths(self, user: User) -> None:
        account, other = stored(user, BANK), stored(user, UPI)
        response = user.caller.delete(path_of(other))
        assert (response.status_code, response.content) == (204, b"")
        for caller in (user.caller, user.platform.partner):
            assert [item["id"] for item in listed(user, caller)] == [account["id"]]
            assert_refused(caller.get(path_of(other)), 404, "AC-801")
            assert_refused(caller.patch(path_of(other), {"holder_name": "Ravi"}), 404, "AC-801")
            assert_refused(caller.delete(path_of(other)), 404, "AC-801")

    def test_frees_the_number(self, user: User) -> None:
        account = stored(user, BANK)
        assert user.platform.partner.delete(path_of(account)).status_code == 204
        again = stored(user, BANK)
        assert (again["id"] != account["id"], again["is_primary"]) == (True, True)

    def test_passes_the_primary_to_the_oldest(self, user: User) -> None:
        first, second, third = stored(user, BANK), stored(user, UPI), stored(user, WALLET)
        made(user.caller.patch(path_of(third), {"is_primary": True}), 200)
        assert user.caller.delete(path_of(third)).status_code == 204
        assert primaries_of(user) == [first["id"]]
        assert user.caller.delete(path_of(first)).status_code == 204
        assert primaries_of(user) == [second["id"]]
        assert user.caller.delete(path_of(second)).status_code == 204
        assert listed(user) == []

    def test_leaves_the_primary_when_another_goes(self, user: User) -> None:
        first, second = stored(user, BANK), stored(user, UPI)
        assert user.caller.delete(path_of(second)).status_code == 204
        assert primaries_of(user) == [first["id"]]


class TestPrivacy:
    def test_tells_numbers_neither_to_the_audit_log_nor_to_logs(self, world: World, user: User) -> None:
        numbers = ["471108150815", "471108150816"]
        account = stored(user, {**BANK, "account_number": numbers[0], "holder_name": "Ravindranath Subramaniam"})
        made(user.caller.patch(path_of(account), {"account_number": numbers[1]}), 200)
        user.caller.post(accounts_of(user), {**BANK, "account_number": numbers[0] + "x"})
        user.caller.get(accounts_of(user), params={"account_number": numbers[0]})
        params = {"entity_type": "account", "entity_id": account["id"]}
        rows = world.admin.get("/audit_logs", params=params)
        assert len(made(rows, 200)["items"]) == 2
        logs = [path.read_text(errors="replace") for path in (world.system.data / "logs").rglob("*") if path.is_file()]
        for text in (rows.text, *logs):
            assert not any(secret in text for secret in (*numbers, "Ravindranath"))

    def test_answers_nothing_personal_of_the_erased(self, world: World) -> None:
        user = world.user()
        partner = user.platform.partner
        verified = {"verification_status": "verified", "verification_reference": "UTR4711"}
        bank = stored(user, {**BANK, "holder_name": "Ravi", "provider_name": "HDFC Bank", **verified}, partner)
        upi = stored(user, UPI)
        assert user.caller.delete(user.path).status_code == 204
        made(world.admin.post(f"{user.path}/erase", REASON), 200)
        accounts = listed(user, partner)
        assert [account["id"] for account in accounts] == [upi["id"], bank["id"]]
        personal = ("account_number_masked", "ifsc", "holder_name", "provider_name", "verification_reference")
        for account in (*accounts, made(partner.get(path_of(bank)), 200)):
            assert [account[name] for name in personal] == [None] * len(personal)
            assert account["shared_with_other_users"] is False
        assert [account["is_primary"] for account in accounts] == [False, True]
        assert_refused(partner.patch(path_of(bank), {"holder_name": "Ravi"}), 409, "US-404")
        assert_refused(partner.delete(path_of(bank)), 409, "US-404")
        # Nobody else is told that the erased person had the account, too.
        relative = world.user(user.platform)
        assert stored(relative, BANK, partner)["shared_with_other_users"] is False
