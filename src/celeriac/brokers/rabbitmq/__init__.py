"""RabbitMQ as a broker: :class:`celeriac.brokers.rabbitmq.broker.RabbitBroker`.

Nothing is imported here: messages that came by AMQP can be read without the optional dependency that a connection needs.
"""
