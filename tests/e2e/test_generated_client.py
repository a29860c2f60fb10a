"""A client that a stock generator makes of the OpenAPI document, as partners make theirs, used without a touch."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from tests.e2e.conftest import System, World
from tests.e2e.contract import Document

PACKAGE = "aarokya_client"


@pytest.fixture(scope="module")
def package(document: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated package; whatever the generator cannot read fails here."""
    folder = tmp_path_factory.mktemp("client")
    source = folder / "openapi.json"
    source.write_text(json.dumps(document.document))
    scripts = Path(sys.executable).parent
    made = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"),
            *("--path", str(source), "--output-path", str(folder / PACKAGE)),
        ],
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout + made.stderr, made.stdout + made.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module(PACKAGE)


class GeneratedClient:
    """Calls what was generated, in the name of one caller."""

    def __init__(self, package: ModuleType, system: System, header: str, secret: str, prefix: str = "") -> None:
        self._package = package.__name__
        self._client = package.AuthenticatedClient(
            base_url=system.url,
            token=secret,
            prefix=prefix,
            auth_header_name=header,
            raise_on_unexpected_status=True,
            httpx_args={"trust_env": False},
        )

    def call(self, operation: str, *path: Any, **arguments: Any) -> Any:
        """Call an operation, named as ``tag.operation_id``, and return its answer's status and parsed body."""
        module = importlib.import_module(f"{self._package}.api.{operation}")
        response = module.sync_detailed(*path, client=self._client, **arguments)
        return int(response.status_code), response.parsed


def test_has_every_operation(package: ModuleType, document: Document) -> None:
    folder = Path(package.__file__ or "").parent / "api"
    generated = {path.stem for path in folder.glob("*/*.py")} - {"__init__"}
    assert generated == {operation["operationId"] for _, _, operation in document.operations()}


def test_walks_the_partners_journey(world: World, package: ModuleType) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    admin = GeneratedClient(package, world.system, "admin-api-key", world.system.admin_key)

    status, platform = admin.call(
        "platforms.create_platform", body=models.CreatePlatformBody(name=world.unique("Rides"), max_dependants=4)
    )
    assert (status, platform.status, platform.min_user_age) == (201, models.PlatformStatus.ACTIVE, 18)
    status, key = admin.call("platforms.create_api_key", platform.id, body=models.CreateApiKeyBody(name="client"))
    assert (status, isinstance(key.secret, str), key.expires_at) == (201, True, None)
    partner = GeneratedClient(package, world.system, "api-key", key.secret)

    status, provider = admin.call(
        "benefit_providers.create_benefit_provider",
        body=models.CreateBenefitProviderBody(
            code=world.unique("p"),
            legal_name="Apollo Clinics Private Limited",
            display_name="Apollo",
            type_=models.BenefitProviderType.CLINIC,
            issues_mrn=True,
            mrn_pattern="AP[0-9]{6}",
        ),
    )
    assert (status, provider.mrn_pattern) == (201, "AP[0-9]{6}")
    status, benefit = admin.call(
        "benefits.create_benefit",
        body=models.CreateBenefitBody(
            benefit_provider_id=provider.id,
            code="consultation",
            name="Doctor's consultation",
            type_=models.BenefitType.CONSULTATION,
            status=models.BenefitStatus.ACTIVE,
            price_paise=0,
            valid_from=date(2020, 1, 1),
            eligible_relationships=[models.Relationship.SELF, models.Relationship.SPOUSE],
            platform_ids=[platform.id],
        ),
    )
    assert (status, benefit.valid_from, benefit.provider.display_name) == (201, date(2020, 1, 1), "Apollo")

    number = world.phone_number()
    status, token = partner.call(
        "auth.issue_token",
        body=models.IssueTokenTokenBody(phone_country_code="+91", phone_number=number, platform_id=platform.id),
    )
    assert (status, token.is_new_user, token.user.phone_number) == (200, True, f"+91{number}")
    assert token.user.status is models.UserStatus.ONBOARDING
    user_id = token.user.id
    user = GeneratedClient(package, world.system, "Authorization", token.access_token, "Bearer")

    status, refused = user.call("users.get_user", user_id)
    assert (status, refused.error.code) == (403, "AU-207")
    status, changed = user.call(
        "users.update_user",
        user_id,
        body=models.UpdateUserBody(
            first_name="Ravi",
            last_name=None,
            gender=models.Gender.MALE,
            date_of_birth=date(1990, 5, 17),
            id_proof=models.IdProofBody(proof_type=models.IdProofType.DRIVING_LICENSE, number="KA0120190001234"),
        ),
        if_match='"1"',
    )
    assert (status, changed.version, changed.id_proof_masked) == (200, 2, "••••1234")
    status, active = user.call("users.complete_onboarding", user_id, body=models.UpdateUserBody())
    assert (status, active.status) == (200, models.UserStatus.ACTIVE)
    assert active.onboarded_at <= datetime.now(UTC)

    status, asha = user.call(
        "dependants.create_dependant",
        user_id,
        body=models.CreateDependantBody(
            relationship=models.Relationship.SPOUSE,
            first_name="Asha",
            gender=models.Gender.FEMALE,
            date_of_birth=date(1992, 11, 3),
        ),
        idempotency_key="the first",
    )
    assert (status, asha.date_of_birth, asha.created_by.type_) == (201, date(1992, 11, 3), models.ActorType.USER)
    body = models.UpdateDependantBody(blood_group=models.BloodGroup.O_POSITIVE)
    status, changed = user.call("dependants.update_dependant", user_id, asha.id, body=body, if_match='"1"')
    assert (status, changed.version, changed.first_name) == (200, 2, "Asha")
    status, stale = user.call("dependants.update_dependant", user_id, asha.id, body=body, if_match='"1"')
    assert (status, stale.error.code, stale.error.details) == (412, "RQ-110", [])
    status, family = user.call("dependants.list_dependants", user_id)
    assert [member.relationship for member in family.items] == [models.Relationship.SPOUSE, models.Relationship.SELF]
    status, family = user.call("dependants.list_dependants", user_id, as_of=asha.created_at, page_size=1)
    assert [member.version for member in family.items] == [1]
    assert family.next_page_token
    status, rest = user.call(
        "dependants.list_dependants", user_id, as_of=asha.created_at, page_size=1, page_token=family.next_page_token
    )
    assert ([member.relationship for member in rest.items], rest.next_page_token) == ([models.Relationship.SELF], None)
    status, versions = user.call("dependants.list_dependant_versions", user_id, asha.id)
    assert [version.blood_group for version in versions.items] == [models.BloodGroup.O_POSITIVE, None]

    status, benefits = user.call(
        "benefits.list_benefits", type_=models.BenefitType.CONSULTATION, benefit_provider_id=provider.id, q="doctor"
    )
    assert [found.id for found in benefits.items] == [benefit.id]

    status, account = user.call(
        "accounts.create_account",
        user_id,
        body=models.CreateAccountBody(type_=models.AccountType.BANK, account_number="123456789012", ifsc="HDFC0001234"),
    )
    assert (status, account.account_number_masked, account.shared_with_other_users) == (201, "••••9012", None)
    status, account = partner.call(
        "accounts.update_account",
        user_id,
        account.id,
        body=models.UpdateAccountBody(verification_status=models.AccountVerificationStatus.VERIFIED),
    )
    assert (status, account.shared_with_other_users) == (200, False)

    link = models.CreateMrnBody(dependant_id=asha.id, benefit_provider_id=provider.id, mrn="AP004711")
    status, mrn = partner.call("mr_ns.link_mrn", body=link)
    assert (status, mrn.source) == (201, models.MrnSource.PARTNER)
    status, again = partner.call("mr_ns.link_mrn", body=link)
    assert (status, again.error.code) == (409, "MR-903")
    status, mrns = partner.call("mr_ns.list_mrns", mrn="AP004711", benefit_provider_id=provider.id)
    assert [found.id for found in mrns.items] == [mrn.id]
    assert admin.call("mr_ns.unlink_mrn", mrn.id, reason="typed wrongly") == (204, None)

    assert user.call("users.delete_user", user_id) == (204, None)
    status, refused = user.call("benefits.list_benefits")
    assert (status, refused.error.code) == (403, "AU-207")
    status, users = admin.call("users.list_users", platform_id=platform.id, status=models.UserStatus.DEACTIVATED)
    assert [(found.id, found.phone_number) for found in users.items] == [(user_id, f"+91{number}")]
    status, rows = admin.call("audit_log.list_audit_logs", user_id=UUID(str(user_id)), action="user.deactivate")
    assert [row.changes.additional_properties["status"] for row in rows.items] == [["active", "deactivated"]]
