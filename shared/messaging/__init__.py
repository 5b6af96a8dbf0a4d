"""News on NATS: outbox and relay, inbox and consumer, RPC by the NATS micro protocol."""

from shared.messaging.broker import Broker
from shared.messaging.consumer import Consumer, has_taken_effect
from shared.messaging.delivery import AnySubscription, BatchSubscription, Delivery, Subscription
from shared.messaging.outbox import Draft, record_event
from shared.messaging.relay import Relay
from shared.messaging.rpc import RpcEndpoint, call_rpc

__all__ = [
    "AnySubscription",
    "BatchSubscription",
    "Broker",
    "Consumer",
    "Delivery",
    "Draft",
    "Relay",
    "RpcEndpoint",
    "Subscription",
    "call_rpc",
    "has_taken_effect",
    "record_event",
]
