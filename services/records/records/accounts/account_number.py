"""When two accounts are the same one."""

from aarokya.records.v1.account_pb2 import Account, AccountType


def parts_of_number(account: Account) -> tuple[str, ...]:
    """Return what tells an account from all others.

    Banks number their accounts by branch; the number of a wallet is often the phone's, with several providers.
    """
    more = {
        AccountType.ACCOUNT_TYPE_BANK: (account.ifsc,),
        AccountType.ACCOUNT_TYPE_UPI: (),
    }.get(account.type, (account.provider_name.casefold(),))
    return str(account.type), account.account_number, *more
