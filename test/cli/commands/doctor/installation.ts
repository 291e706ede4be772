// The installation of the chart that the pure tests of doctor's checks judge.
import type { Installation } from '../../../../cli/kubernetes/chart.ts';
import { WEBHOOK_NAME } from '../../../../contract/names.ts';

export const INSTALLATION: Installation = {
  name: 'ecr-anywhere',
  release: 'ecr-anywhere',
  namespace: 'ecr-anywhere',
  index: 0,
  tlsMode: 'self',
  callers: 'any',
  version: '1',
  refresher: 'ecr-anywhere-refresher',
  tokenSecret: 'ecr-anywhere-refresher-token',
  webhook: { name: WEBHOOK_NAME, clientConfig: {} },
};
