// What the node's machine (enter.sh) and the programs on it (node.ts) have in common.

/** The node's address: the API server, DNS and the local AWS listen there. */
export const ADDRESS = '10.88.0.1';

/** The range of addresses of Services. */
export const SERVICES = '10.96.0.0/16';

/** The environment variable that names the node's control group; set only inside the node's namespaces. */
export const CGROUP = 'ECR_ANYWHERE_NODE_CGROUP';
