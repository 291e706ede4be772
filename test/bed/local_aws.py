"""MiniStack as the test bed serves it: with two things that AWS does and MiniStack does not."""

from ministack.app import app  # noqa: F401 (Hypercorn serves it)
from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners

find_function = lambda_svc._get_func_record_for_ref
alarm_record = provisioners._cw_metric_alarm_record


def find_function_as_named(ref):
    """A function that Step Functions invokes by the ARN of an alias sees that ARN as `invokedFunctionArn`."""
    record, config, name = find_function(ref)
    if config and ref.startswith("arn:"):
        config = {**config, "FunctionArn": ref}
    return record, config, name


def alarm_record_with_expressions(name, props):
    """CloudFormation accepts an alarm on an expression. It gets no data: the tests evaluate such alarms themselves."""
    if props.get("Metrics"):
        props = {**props, "Metrics": None, "Namespace": "Bed", "MetricName": f"Expression of {name}"}
    return alarm_record(name, props)


lambda_svc._get_func_record_for_ref = find_function_as_named
provisioners._cw_metric_alarm_record = alarm_record_with_expressions
