"""The shop, release 2: `uvicorn v2.app:app`."""

import os
from decimal import Decimal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import sessionmaker

from v2.models import Order, User

app = FastAPI()
transaction = sessionmaker(create_engine(os.environ["DATABASE_URL"])).begin


class UserIn(BaseModel):
    """A user, as a request gives it."""

    full_name: str
    email: str


class UserOut(UserIn):
    """A user, as an answer tells it."""

    model_config = ConfigDict(from_attributes=True)
    id: int


class OrderIn(BaseModel):
    """An order, as a request gives it."""

    user_id: int
    total: Decimal


class OrderOut(OrderIn):
    """An order, as an answer tells it."""

    model_config = ConfigDict(from_attributes=True)
    id: int


@app.exception_handler(NoResultFound)
def not_found(request: Request, error: Exception) -> Response:
    """Answer 404 where there is no such row."""
    return Response(status_code=404)


@app.post("/users")
def add_user(given: UserIn) -> UserOut:
    """Make a user."""
    with transaction() as session:
        user = User(full_name=given.full_name, email=given.email)
        session.add(user)
        session.flush()
        return UserOut.model_validate(user)


@app.put("/users/{id}")
def change_user(id: int, given: UserIn) -> UserOut:
    """Change a user's name and mail address."""
    with transaction() as session:
        user = session.get_one(User, id)
        user.full_name = given.full_name
        user.email = given.email
        return UserOut.model_validate(user)


@app.get("/users/{id}")
def get_user(id: int) -> UserOut:
    """Tell a user."""
    with transaction() as session:
        return UserOut.model_validate(session.get_one(User, id))


@app.post("/orders")
def add_order(given: OrderIn) -> OrderOut:
    """Make an order."""
    with transaction() as session:
        order = Order(user_id=given.user_id, total=given.total)
        session.add(order)
        session.flush()
        return OrderOut.model_validate(order)


@app.put("/orders/{id}")
def change_order(id: int, given: OrderIn) -> OrderOut:
    """Change what an order comes to."""
    with transaction() as session:
        order = session.get_one(Order, id)
        order.total = given.total
        return OrderOut.model_validate(order)


@app.get("/orders/{id}")
def get_order(id: int) -> OrderOut:
    """Tell an order."""
    with transaction() as session:
        return OrderOut.model_validate(session.get_one(Order, id))


@app.get("/users/{id}/orders")
def get_orders(id: int) -> list[OrderOut]:
    """Tell the orders of a user."""
    with transaction() as session:
        orders = session.scalars(select(Order).where(Order.user_id == id))
        return [OrderOut.model_validate(order) for order in orders]
