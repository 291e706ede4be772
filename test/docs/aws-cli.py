"""As much of the AWS CLI as the documentation's commands need: aws SERVICE OPERATION --option VALUE…

Options are the operation's parameters; file:// reads a value from a file; --query and --output text print a part.
"""
import json
import sys

import botocore.session
import jmespath
from botocore import xform_name

service, operation, *words = sys.argv[1:]
options: dict[str, list[str]] = {}
for word in words:
    if word.startswith('--'):
        values = options.setdefault(word[2:], [])
    else:
        values.append(word)
query = options.pop('query', [None])[0]
output = options.pop('output', ['json'])[0]

client = botocore.session.get_session().create_client(service)
method = operation.replace('-', '_')
api_name = client.meta.method_to_api_mapping[method]
members = client.meta.service_model.operation_model(api_name).input_shape.members
parameters = {}
for name, shape in members.items():
    given = options.pop(xform_name(name, '-'), None)
    if given is None:
        continue
    given = [open(one[7:]).read() if one.startswith('file://') else one for one in given]
    parameters[name] = given if shape.type_name == 'list' else given[0]
if options:
    sys.exit(f'aws {service} {operation}: unknown options: {", ".join(options)}')

answer = getattr(client, method)(**parameters)
answer.pop('ResponseMetadata', None)
result = jmespath.search(query, answer) if query else answer
if output == 'text':
    print('\t'.join(map(str, result)) if isinstance(result, list) else result)
elif result:
    print(json.dumps(result, indent=4, default=str))
