"""Django's own objects as arguments and results: model instances, querysets, and strings that are translated late.

    object                  as an argument                    as a result
    ----------------------  --------------------------------  ------------------------------------------------------------
    model instance          its class and primary key         its loaded fields, related and prefetched objects
    AnonymousUser           its class and what was put on it  refused
    SimpleLazyObject        as what it stands for             what it stands for; inside something else only pickle has it
    queryset                refused (give what it is made of) evaluated: the list of its rows, for the caller who loads too
    queryset inside         refused                           evaluated, of instances only; a new query on it is about their
    something else                                            primary keys
    gettext_lazy, ...       refused                           its text before translation: each reader translates
    ngettext_lazy, ...      refused                           its texts, and its number or the name of the number

Models are registered as they are made. An instance whose model has other fields than when it was stored is a miss. An
instance that was never saved has no primary key and is refused as an argument. Only text that translates itself by
`gettext_lazy`, `pgettext_lazy`, `ngettext_lazy`, `npgettext_lazy`, and URLs by `reverse_lazy` come back; other lazy objects
are refused as results. Django gives each plural text a class of its own, so that what comes back is of another such class.
"""

from __future__ import annotations

import copy
from functools import partial
from hashlib import blake2b
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import DJANGO_VERSION_PICKLE_KEY
from django.db.models import Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.fields.files import FieldFile
from django.db.models.query import ModelIterable, RawQuerySet
from django.db.models.signals import class_prepared
from django.urls import reverse_lazy
from django.utils.functional import Promise, SimpleLazyObject, empty
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy, npgettext, npgettext_lazy, pgettext_lazy

from memover.classes.registered import register_family, register_value
from memover.errors import UnkeyableArgument
from memover.keys.canonical import register_key, register_proxy
from memover.runtime.results import evaluate_by

__all__ = ["install", "install_users"]

_PREFETCHED = "_prefetched_objects_cache"
_NOT_VALUES = ("_state", _PREFETCHED, DJANGO_VERSION_PICKLE_KEY)  # the last one is what a copied instance has


def install() -> None:
    """Registers every model there is and those still to be made; done when `memover.django` is imported."""
    register_key(Model, _identity)
    class_prepared.connect(_prepared, dispatch_uid="memover.django.values")
    for query in (QuerySet, RawQuerySet):
        evaluate_by(query, list, sync_to_async(list))
    register_proxy(SimpleLazyObject, _behind)
    evaluate_by(SimpleLazyObject, _behind, sync_to_async(_behind))
    register_value(QuerySet, _rows_of, partial(_rows_from, QuerySet))
    for name, lazy in (
        ("gettext_lazy", gettext_lazy),
        ("pgettext_lazy", pgettext_lazy),
        ("reverse_lazy", reverse_lazy),
    ):
        kind: Any = type(lazy("a", "b") if name == "pgettext_lazy" else lazy("a"))
        # Django's proxies share one name, and a stored value goes by the name of its class.
        kind.__qualname__ = f"{name}.<locals>.__proxy__"
        register_value(kind, _call_of, partial(_call_from, lazy))
    register_family(Promise, _plural_of, _plural_from)
    if apps.models_ready:
        for model in apps.get_models(include_auto_created=True):
            _prepared(model)


def install_users() -> None:
    """Registers the user of requests without one, whose module can be imported only when all models are there."""
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        register_key(AnonymousUser, lambda user: dict(vars(user)))


def _prepared(sender: Any, **_: Any) -> None:
    if sender._meta.abstract or sender._meta.swapped:
        return
    register_value(sender, _instance_of, partial(_instance_from, sender))
    for manager in sender._meta.managers:
        queryset = getattr(manager, "_queryset_class", None)
        if isinstance(queryset, type) and issubclass(queryset, QuerySet) and queryset is not QuerySet:
            register_value(queryset, _rows_of, partial(_rows_from, queryset))


def _behind(lazy: Any) -> Any:
    """What a `SimpleLazyObject` stands for: `request.user` is one."""
    if lazy._wrapped is empty:
        lazy._setup()
    return lazy._wrapped


# -- arguments --------------------------------------------------------------------------------------------------------------


def _identity(instance: Any) -> tuple[str, str, Any]:
    if instance.pk is None:
        kind = type(instance)
        raise UnkeyableArgument(
            f"An instance of {kind.__module__}.{kind.__qualname__} that was never saved has no primary key, so nothing tells "
            f"it from others: save it first, or give the function the values that its result depends on.",
            kind=f"{kind.__module__}.{kind.__qualname__}",
        )
    meta = instance._meta.concrete_model._meta
    return meta.app_label, meta.model_name, instance.pk


# -- instances --------------------------------------------------------------------------------------------------------------


def _fields_digest(model: Any) -> str:
    names = "\n".join(field.attname for field in model._meta.concrete_fields)
    return blake2b(names.encode(), digest_size=4).hexdigest()


def _instance_of(instance: Any) -> list[Any]:
    state, backward = instance._state, dict[str, Any]()
    values: dict[str, Any] = {}
    for name, value in instance.__dict__.items():
        if name not in _NOT_VALUES:
            values[name], back = _apart(value, instance)
            if back:
                backward[name] = back
    related: dict[str, Any] = {}
    for name, row in state.fields_cache.items():
        related[name], back = _apart(row, instance)
        if back:
            backward[f"{_RELATED}{name}"] = back
    prefetched = {}
    for name, found in instance.__dict__.get(_PREFETCHED, {}).items():
        prefetched[name] = [_without_backward(row, instance) for row in found]
    content = [_fields_digest(type(instance)), state.db, state.adding, values, related, prefetched]
    # Entries without such references are as long as before there were any.
    return [*content, backward] if backward else content


_RELATED = "_state."
"""Before the names of related objects among those of attributes, which hold no dot."""


def _apart(value: Any, owner: Any) -> tuple[Any, Any]:
    """An attribute's value without the references to its owner of the instances in it, and their names: for a list (of
    `Prefetch(to_attr=...)`) one list of names for each item."""
    if isinstance(value, FieldFile):
        return value.name, None
    if isinstance(value, Model):
        row, back = _without_backward(value, owner)
        return row, back
    if type(value) is list and value and isinstance(value[0], Model):
        found = [_without_backward(each, owner) if isinstance(each, Model) else [each, []] for each in value]
        names = [back for _, back in found]
        return [each for each, _ in found], names if any(names) else None
    return value, None


def _joined(value: Any, back: Any, owner: Any) -> None:
    """Puts the references to the owner back that `_apart` has taken out."""
    for each, names in zip(value, back) if type(value) is list else [(value, back)]:
        for name in names:
            each._state.fields_cache[name] = owner


def _without_backward(row: Any, owner: Any) -> list[Any]:
    """A related row without its references to the instance it is related to, and their names."""
    backward = [name for name, each in row._state.fields_cache.items() if each is owner]
    if backward:
        row = copy.copy(row)
        row._state.fields_cache = {name: each for name, each in row._state.fields_cache.items() if name not in backward}
    return [row, backward]


def _instance_from(model: Any, content: Any) -> Any:
    digest, db, adding, values, related, prefetched, *more = content
    if digest != _fields_digest(model):
        raise ValueError("the model has other fields now")
    instance = model.__new__(model)
    state = ModelState()
    state.db, state.adding, state.fields_cache = db, adding, related
    instance.__dict__.update(values)
    instance.__dict__["_state"] = state
    for backward in more:
        for name, back in backward.items():
            place = name.removeprefix(_RELATED)
            _joined(values[name] if place == name else related[place], back, instance)
    for name, rows in prefetched.items():
        found = []
        for row, backward in rows:
            for each in backward:
                row._state.fields_cache[each] = instance
            found.append(row)
        queryset = getattr(instance, name).get_queryset()
        queryset._result_cache, queryset._prefetch_done = found, True
        instance.__dict__.setdefault(_PREFETCHED, {})[name] = queryset
    return instance


# -- querysets --------------------------------------------------------------------------------------------------------------


def _rows_of(queryset: Any) -> list[Any]:
    if not issubclass(queryset._iterable_class, ModelIterable):
        raise TypeError("values() and values_list() are not instances: put list(queryset) there")
    meta = queryset.model._meta
    return [f"{meta.app_label}.{meta.model_name}", queryset.db, list(queryset)]


def _rows_from(kind: Any, content: Any) -> Any:
    label, db, rows = content
    queryset = kind(model=apps.get_model(label), using=db)
    # A query that is made from it asks the database, about these rows.
    queryset = queryset.filter(pk__in=[row.pk for row in rows])
    queryset._result_cache, queryset._prefetch_done = rows, True
    return queryset


# -- late text --------------------------------------------------------------------------------------------------------------


def _call_of(lazy: Any) -> list[Any]:
    _, (_, args, kwargs, *_) = lazy.__reduce__()
    return [list(args), dict(kwargs)]


def _call_from(lazy: Any, content: Any) -> Any:
    args, kwargs = content
    return lazy(*args, **kwargs)


def _plural_of(lazy: Any) -> list[Any]:
    _, (function, *rest) = lazy.__reduce__()
    if function is ngettext or function is npgettext:
        # With a number: (args, kwargs, str). With a name, or none: (str, name, kwargs), and the text knows its number later.
        if type(rest[0]) is tuple:
            _, texts, *_ = rest
            texts = dict(texts)
            number = texts.pop("number")
        else:
            _, number, texts = rest
        return [texts.get("context"), texts["singular"], texts["plural"], number]
    raise TypeError("of lazy objects only translated texts and URLs can be stored: return its value, as str(text)")


def _plural_from(content: Any) -> Any:
    context, singular, plural, number = content
    if context is None:
        return ngettext_lazy(singular, plural, number)
    return npgettext_lazy(context, singular, plural, number)
