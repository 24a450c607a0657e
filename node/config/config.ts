/** What a node is told before it starts: checked, with every default filled in. Made by `loadConfig`, or by hand in tests. */

/** PEM files. With `clientCaFile` every client must show a certificate that this authority signed. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCaFile: string | undefined;
}

/** One platform property that this node offers to actions, such as `OSFamily` = `linux`. */
export interface PlatformProperty {
  readonly name: string;
  readonly value: string;
}

/** What this machine lends to the actions of other members; `potluck lend` changes it while the node runs. */
export interface LendConfig {
  /** `idle`: while its owner does not need it. `always`: the owner's work and input do not matter. */
  readonly when: 'idle' | 'always' | 'never';
  /** Guests at once, at most; `undefined`: as many as there are slots. */
  readonly slots: number | undefined;
}

/** How this node takes part in its mesh. */
export interface MeshConfig {
  /** host:port of the control plane. Nothing listens there until somebody was invited. */
  readonly listen: string;
  /** host:port of the data plane. */
  readonly dataListen: string;
  /** host:port of members to begin with, beside those that are remembered. */
  readonly bootstrap: readonly string[];
  /** Members of one site are near each other; a name such as `berlin`. */
  readonly site: string;
  /** Whether members look for each other by multicast DNS. */
  readonly discovery: boolean;
  /** Whose results are taken from the mesh: of every member, of members with the role `publisher`, or only this node's own. */
  readonly trust: 'members' | 'publishers' | 'self';
  /** What members may fetch from this node in a second, on average; 0 serves nobody, `undefined` sets no bound. */
  readonly uploadBytesPerSecond: number | undefined;
  /** Nodes of the site that hold a result of this one, itself included. */
  readonly replicas: number;
  /** Absent: all slots while idle. */
  readonly lend?: LendConfig;
}

export interface NodeConfig {
  /** Absolute; made when it does not exist. Held by one serving node at a time. */
  readonly dataDir: string;
  /** Where gRPC is served: `127.0.0.1:8980`, `[::1]:8980` or `unix:/absolute/path`. Port 0 picks a free one. At least one. */
  readonly listen: readonly string[];
  /** Where HTTP is served, written like `listen`; `undefined` turns it off. */
  readonly http: string | undefined;
  /** Hard limit of the blobs on disk. */
  readonly cacheSizeBytes: number;
  /** Actions that run at once; 0 makes the node a cache only. */
  readonly slots: number;
  /** Instance names that are served; `undefined` serves any. The empty name is written ''. */
  readonly instances: readonly string[] | undefined;
  /** `full` syncs to disk before it acknowledges; `fast` does not, and a power cut may lose acknowledged blobs. */
  readonly durability: 'full' | 'fast';
  readonly tls: TlsFiles | undefined;
  /** A file whose text, less surrounding white space, clients must send as `authorization: Bearer …`. */
  readonly bearerTokenFile: string | undefined;
  /** The bubblewrap program; `undefined` looks for `bwrap` on PATH. */
  readonly bwrapPath: string | undefined;
  /** For an action that names no timeout. */
  readonly defaultActionTimeoutMs: number;
  /** An action that asks for more is refused. */
  readonly maxActionTimeoutMs: number;
  /** Offered to actions beside what the node finds out about itself. */
  readonly platformProperties: readonly PlatformProperty[];
  /** Whether `PUT /ac/…` over HTTP must carry an ActionResult whose blobs are held. */
  readonly validateHttpActionResults: boolean;
  /** Whether the Remote Asset API is served, by which clients make this machine read URLs and files. */
  readonly remoteAsset: boolean;
  /** `undefined`: this node is on its own, whatever its data directory says. */
  readonly mesh?: MeshConfig | undefined;
  /** Of cache hits, that are run again and compared while this node is idle; 0 audits nothing unasked. */
  readonly auditPercent: number;
  readonly logFormat: 'text' | 'json';
}
