"""Signing in to the web pages with a key, which the browser sends once; a cookie stands for it from then on."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.authentication import COOKIE, address, is_secure, local_path
from app.dependencies import SessionDep
from app.errors import RateExceeded, Unauthorized
from app.persistence import keys
from app.rates import failures
from app.routers.pages import page

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=2000)]


@router.get("/sign-in")
def show_sign_in(request: Request, next: str = "/") -> Response:
    """The form that takes a key."""
    return page(request, "sign-in.html", next=local_path(next))


@router.post("/sign-in")
def sign_in(request: Request, session: SessionDep, key: Text = "", next: Text = "/") -> Response:
    """Go on to where one wanted to, signed in; or say what is wrong with the key."""
    try:
        who = keys.caller(session, key.strip())
    except Unauthorized as error:
        seconds = failures().too_many(address(request))
        if seconds is not None:
            raise RateExceeded("too many bad keys", seconds) from None
        return page(request, "sign-in.html", 401, next=local_path(next), wrong=error.detail)
    secret, lasts = keys.sign_in(session, who)
    session.commit()
    response = RedirectResponse(local_path(next), 303)
    response.set_cookie(
        COOKIE, secret, int(lasts.total_seconds()), path="/", secure=is_secure(request), httponly=True, samesite="strict"
    )
    return response


@router.post("/sign-out")
def sign_out(request: Request, session: SessionDep) -> Response:
    """Forget the cookie, here and in the browser."""
    keys.sign_out(session, request.cookies.get(COOKIE, ""))
    session.commit()
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE, path="/", secure=is_secure(request), httponly=True, samesite="strict")
    return response
