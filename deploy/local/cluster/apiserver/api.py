"""The HTTP face of the registry: paths, verbs, query parameters and representations."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from deploy.local.cluster.apiserver import discovery
from deploy.local.cluster.apiserver.faults import Faults
from deploy.local.cluster.apiserver.http import Request, Response, error_response
from deploy.local.cluster.apiserver.listing import Listing
from deploy.local.cluster.apiserver.representation import Representation
from deploy.local.cluster.apiserver.watch import Watches
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.deletion import DeleteOptions, parse_options
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import API_VERSIONS, RESOURCES, Resource, path_of
from deploy.local.cluster.registry.store import Record

logger = logging.getLogger(__name__)

_PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_JSON = ["application/json"]

PodSubresource = Callable[[Request, Target], Awaitable[Response]]
"""A handler of a pod's log, exec and the like: what the kubelet answers and the API server passes on."""

AdminHandler = Callable[[Request, list[str]], Response]
"""Answers requests below /simulator/, whose path it gets in parts."""


class Api:
    """Answers requests; every answer is durable before it is sent."""

    def __init__(
        self,
        registry: Registry,
        token: str,
        pod_subresources: Mapping[str, PodSubresource],
        admin: AdminHandler,
        faults: Faults,
    ) -> None:
        self._registry, self._token = registry, token
        self._pod_subresources = pod_subresources
        self._admin, self._faults = admin, faults
        self._listing = Listing(registry.store)
        self._watches = Watches(registry.store)

    async def handle(self, request: Request) -> Response:
        """The answer to any request; errors become their Status. Raises ConnectionAbortedError: there is none."""
        try:
            return await self._route(request)
        except errors.StatusError as error:
            await self._registry.store.durable()
            return error_response(error)
        except ConnectionAbortedError:
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            return error_response(errors.internal())

    async def _route(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        if path in _PUBLIC or path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return discovery.public(path)
        self._authenticate(request)
        if path.startswith("/simulator/"):
            response = self._admin(request, path.removeprefix("/simulator/").split("/"))
            await self._registry.store.durable()
            return response
        lose_answer = await self._faults.meet(request)
        response = await self._serve(request, path)
        if lose_answer:
            raise ConnectionAbortedError
        return response

    async def _serve(self, request: Request, path: str) -> Response:
        document = discovery.document(path, request.headers.get("accept", ""))
        if document is not None:
            return document
        for version in API_VERSIONS:
            if path.startswith(f"{path_of(version)}/"):
                return await self._resource(request, _target(version, path.removeprefix(path_of(version))[1:]))
        raise errors.no_such_path()

    def _authenticate(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            raise errors.unauthorized()

    async def _resource(self, request: Request, target: Target) -> Response:
        if target.subresource:
            return await self._subresource(request, target)
        if not target.name:
            return await self._collection(request, target)
        match request.method:
            case "GET" if request.query.get("watch") in {"true", "1"}:
                return await self._watch(request, target)
            case "GET":
                return await self._object(request, self._registry.get(target))
            case "PUT" | "PATCH":
                return await self._object(request, self._write(request, target))
            case "DELETE":
                return await self._delete(request, target)
        raise errors.method_not_allowed()

    async def _collection(self, request: Request, target: Target) -> Response:
        match request.method:
            case "GET" if request.query.get("watch") in {"true", "1"}:
                return await self._watch(request, target)
            case "GET":
                representation = Representation.requested(request, target.resource)
                body = self._listing.read(target, request.query, representation)
                await self._registry.store.durable()
                return Response(body=body, content_type=representation.content_type)
            case "POST" if target.resource.namespaced and not target.namespace:
                raise errors.bad_request("an empty namespace may not be set during creation")
            case "POST":
                _require_json(request)
                record = self._registry.create(
                    target.resource, target.namespace, request.json(), dry_run="dryRun" in request.query
                )
                return await self._object(request, record, status=201)
            case "DELETE":
                return await self._delete_collection(request, target)
        raise errors.method_not_allowed()

    async def _watch(self, request: Request, target: Target) -> Response:
        representation = Representation.requested(request, target.resource)
        stream = await self._watches.open(target, request.query, representation)
        return Response(content_type=representation.content_type, stream=self._faults.silenced(request, stream))

    async def _subresource(self, request: Request, target: Target) -> Response:
        if target.resource.plural == "pods":
            handler = self._pod_subresources.get(target.subresource)
            if handler is not None:
                self._registry.get(target)
                response = await handler(request, target)
                await self._registry.store.durable()
                return response
        if target.subresource not in target.resource.subresources:
            raise errors.no_such_path()
        match request.method:
            case "GET":
                return await self._object(request, self._registry.get(target))
            case "PUT" | "PATCH":
                return await self._object(request, self._write(request, target))
        raise errors.method_not_allowed()

    def _write(self, request: Request, target: Target) -> Record:
        dry_run = "dryRun" in request.query
        if request.method == "PATCH":
            return self._registry.patch(target, request.content_type, request.json(), dry_run=dry_run)
        _require_json(request)
        return self._registry.update(target, request.json(), dry_run=dry_run)

    async def _delete(self, request: Request, target: Target) -> Response:
        record, gone = self._registry.delete(target, _delete_options(request))
        if not gone or target.resource.returns_deleted:
            return await self._object(request, record)
        await self._registry.store.durable()
        details = {"name": target.name, "kind": target.resource.plural, "uid": record.value["metadata"]["uid"]}
        return Response(body=msgspec.json.encode(success(details)))

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        options = _delete_options(request)
        records = self._listing.select(target, request.query)
        for record in records:
            name = record.value["metadata"]["name"]
            self._registry.delete(Target(target.resource, record.key[1], name), options)
        await self._registry.store.durable()
        representation = Representation.requested(request, target.resource)
        body = representation.collection(records, {"resourceVersion": str(self._registry.store.revision)})
        return Response(body=body, content_type=representation.content_type)

    async def _object(self, request: Request, record: Record, status: int = 200) -> Response:
        await self._registry.store.durable()
        resource = RESOURCES[record.key[0]]
        representation = Representation.requested(request, resource)
        return Response(status, representation.object(record), representation.content_type)


def success(details: Object | None = None) -> Object:
    """A Status that reports success."""
    status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200}
    return {**status, "details": details} if details else status


def _target(version: str, path: str) -> Target:
    parts = path.split("/")
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in {"status", "finalize"}:  # noqa: PLR2004
        resource, rest = _lookup(version, parts[2]), parts[3:]
        if not resource.namespaced:
            raise errors.no_such_path()
        return Target(resource, parts[1], *_name_and_subresource(rest))
    resource, rest = _lookup(version, parts[0]), parts[1:]
    if resource.namespaced and rest:
        raise errors.no_such_path()
    return Target(resource, "", *_name_and_subresource(rest))


def _lookup(version: str, plural: str) -> Resource:
    resource = RESOURCES.get(plural)
    if resource is None or resource.api_version != version:
        raise errors.no_such_path()
    return resource


def _name_and_subresource(rest: list[str]) -> tuple[str, str]:
    name, *more = rest or [""]
    return name, "/".join(more)


def _require_json(request: Request) -> None:
    if request.content_type not in {"", "application/json", "*/*"}:
        raise errors.unsupported_media_type(_JSON)


def _delete_options(request: Request) -> DeleteOptions:
    return parse_options(request.query, request.json() if request.body else None)
