"""A partner's journey, from a new platform to a user who has left."""

import base64
import json

import pytest

from tests.e2e.conftest import World, assert_refused, made

LICENCE = "KA0120190001234"


def claims_of(token: str) -> dict[str, object]:
    """Read a token as apps do: without verifying it."""
    payload = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


class TestGenerationsOfTokenBodies:
    """What deployed apps send, byte for byte."""

    JSON = "application/json;charset=utf-8"

    def send(self, world: World, headers: dict[str, str], body: str) -> dict[str, object]:
        headers = {"content-type": self.JSON, **headers}
        return made(world.http.post("/auth/token", headers=headers, content=body.encode()), 200)

    @pytest.mark.parametrize("generation", ["A", "B", "C", "D"])
    def test_gets_a_token_that_says_onboarding(self, world: World, generation: str) -> None:
        platform = world.platform()
        number = world.phone_number()
        basic = base64.b64encode(f"{platform.id}:{platform.secret}".encode()).decode()
        key, basic_header = {"api-key": platform.secret}, {"authorization": f"Basic {basic}"}
        proof = f'"id_proof":{{"proof_type":"DRIVING_LICENSE","number":"{LICENCE}"}}'
        headers, body = {
            "A": (
                key,
                f'{{"phone_country_code":"+91","phone_number":"{number}","platform_id":"{platform.id}","dl_number":null}}',
            ),
            "B": (
                key,
                f'{{"phone_country_code":"","phone_number":"{number}","platform_id":"{platform.id}",'
                f'"dl_number":"{LICENCE}"}}',
            ),
            "C": (basic_header, f'{{"phone_country_code":"+91","phone_number":"{number}",{proof}}}'),
            "D": (
                basic_header,
                f'{{"phone_country_code":"+91","phone_number":"{number}",{proof},"dob":"1990-05-17",'
                '"address":"12 MG Road","gender":"MALE","first_name":"Ravi","last_name":null}',
            ),
        }[generation]
        answer = self.send(world, headers, body)
        claims = claims_of(str(answer["access_token"]))
        assert str(claims["status"]).upper() == "ONBOARDING"
        assert claims["platform_id"] == platform.id
        user = answer["user"]
        assert isinstance(user, dict)
        assert (claims["sub"], user["phone_number"]) == (user["id"], f"+91{number}")
        assert user["id_proof_type"] == (None if generation == "A" else "DRIVING_LICENSE")
        assert user["address_line"] == ("12 MG Road" if generation == "D" else None)
        assert answer["missing_fields"] == ([] if generation == "D" else ["first_name", "gender", "date_of_birth"])


class TestPartnerJourney:
    def test_walks_from_platform_to_deactivation(self, world: World) -> None:
        platform = world.platform()
        provider = world.provider()
        benefit = world.benefit(provider, platform_ids=[platform.id])

        user = world.user(platform, is_active=False)
        assert_refused(user.caller.get(user.path), 403, "AU-207")
        made(user.caller.patch(user.path, {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}), 200)
        active = made(user.caller.post(f"{user.path}/complete_onboarding"), 200)
        assert active["status"] == "active"

        family = made(user.caller.get(f"{user.path}/dependants"), 200)["items"]
        assert [member["relationship"] for member in family] == ["SELF"]

        asha = world.dependant(user, first_name="Asha")
        changed = made(user.caller.patch(f"{user.path}/dependants/{asha['id']}", {"last_name": "Kumar"}), 200)
        assert (changed["id"], changed["version"]) == (asha["id"], 2)
        versions = made(user.caller.get(f"{user.path}/dependants/{asha['id']}/versions"), 200)["items"]
        assert [(version["version"], version["last_name"]) for version in versions] == [(2, "Kumar"), (1, None)]

        seen = made(user.caller.get("/benefits", params={"benefit_provider_id": provider["id"]}), 200)["items"]
        assert [item["id"] for item in seen] == [benefit["id"]]

        account = {"type": "BANK", "account_number": "123456789012", "ifsc": "HDFC0001234"}
        stored = made(user.caller.post(f"{user.path}/accounts", account), 201)
        assert (stored["account_number_masked"], stored["is_primary"]) == ("••••9012", True)
        assert "account_number" not in stored

        link = {"dependant_id": asha["id"], "benefit_provider_id": provider["id"], "mrn": "MRN-42"}
        mrn = made(platform.partner.post("/mrns", link), 201)
        assert_refused(platform.partner.post("/mrns", link), 409, "MR-903")
        assert world.admin.delete(f"/mrns/{mrn['id']}", params={"reason": "typed wrongly"}).status_code == 204
        made(platform.partner.post("/mrns", link), 201)

        assert user.caller.delete(user.path).status_code == 204
        assert_refused(user.caller.get("/benefits"), 403, "AU-207")
        body = {"phone_number": user.phone_number, "platform_id": platform.id}
        assert_refused(platform.partner.post("/auth/token", body), 403, "US-406")
