//! The settings themselves. A field's doc comment is its line in `docs/CONFIG.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Problem;
use super::layers::{Layers, within};
use super::value::{BusKind, LogFormat, Secret, Setting, StoreKind};

/// Worker threads of a node at most: connections tell threads apart by a bit each.
pub const MAX_WORKERS: usize = 128;

/// One setting, as the reference page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// `section.key`.
    pub key: String,
    /// Its value, as it would stand in the file: the default, or the one in force.
    pub value: String,
    /// What it is for.
    pub doc: String,
}

/// Declares the sections: for each a struct with its defaults, and [`Config`] with all of them.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:literal => $member:ident: $name:ident {
            $($(#[doc = $doc:literal])* $field:ident: $kind:ty = $default:expr $(, in $range:expr)?;)*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                $($(#[doc = $doc])* pub $field: $kind,)*
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($field: $default,)* }
                }
            }

            impl $name {
                fn read(layers: &mut Layers, problems: &mut Vec<Problem>) -> Self {
                    $(
                        let key = concat!($section, ".", stringify!($field));
                        let $field: $kind = layers.take(key, $default, problems);
                        $(within(key, $field, &$range, problems);)?
                    )*
                    Self { $($field,)* }
                }

                fn fields(&self, fields: &mut Vec<Field>) {
                    $(fields.push(Field {
                        key: concat!($section, ".", stringify!($field)).to_owned(),
                        value: self.$field.show(),
                        doc: [$($doc),*].map(str::trim).join(" "),
                    });)*
                }
            }
        )*

        /// All settings of a node.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $member: $name,)*
        }

        impl Config {
            pub(super) fn read(layers: &mut Layers, problems: &mut Vec<Problem>) -> Self {
                Self { $($member: $name::read(layers, problems),)* }
            }

            /// Every setting with its default, in the order of the reference page.
            pub fn fields() -> Vec<Field> {
                Self::default().in_force()
            }

            /// Every setting with the value in force; secrets are hidden, and files named.
            pub fn in_force(&self) -> Vec<Field> {
                let mut fields = Vec::new();
                $(self.$member.fields(&mut fields);)*
                fields
            }

            /// The sections with what each is about.
            pub fn sections() -> Vec<(&'static str, String)> {
                vec![$(($section, [$($section_doc),*].map(str::trim).join(" ")),)*]
            }
        }
    };
}

sections! {
    /// Where the node listens, and whom it believes.
    "http" => http: HttpSettings {
        /// Where clients connect; port 0 takes any free one.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// A listener of its own for `/livez`, `/readyz` and `/metrics`, which the other one then does not serve.
        operations_listen: Option<SocketAddr> = None;
        /// Networks of load balancers whose `Forwarded` header (RFC 7239) is believed; the last address in it that is
        /// not theirs counts as the client's.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// Origins of web pages that may open a WebSocket, such as `https://chat.example.org`; `*`: all. Pages of the
        /// node's own host always may, and so may programs that are no browsers.
        allowed_origins: Vec<String> = Vec::new();
        /// Worker threads; 0: one per core. A node tells at most 128 apart.
        workers: usize = 0, in 0..=MAX_WORKERS;
        /// Seconds in which a request's head must have come.
        request_timeout_s: u64 = 10, in 1..=3600;
        /// Seconds that an idle HTTP connection is kept.
        keep_alive_s: u64 = 75, in 1..=3600;
        /// The largest body of an HTTP request.
        body_bytes: usize = 16_384, in 4096..=1_048_576;
    }

    /// Encryption of the client listener; both files or none.
    "http.tls" => http_tls: TlsSettings {
        /// The certificate chain, PEM.
        cert: Option<PathBuf> = None;
        /// Its private key, PEM.
        key: Option<PathBuf> = None;
    }

    /// What is kept, where, and for how long.
    "store" => store: StoreSettings {
        /// `sqlite`: embedded, for one node; `postgres`: a database that many nodes share.
        kind: StoreKind = StoreKind::Sqlite;
        /// The directory of the embedded store; made if it is not there.
        data_dir: PathBuf = PathBuf::from("data");
        /// Connections of the embedded store that read beside the one that writes.
        readers: u32 = 4, in 1..=256;
        /// The most rows in one transaction.
        batch_rows: usize = 2000, in 1..=1_000_000;
        /// The most bytes in one transaction, as far as one commit is not larger by itself.
        batch_bytes: usize = 4_194_304, in 65_536..=1_073_741_824;
        /// Rows that may wait for the next transaction; beyond, requests are refused with `overloaded`.
        queue_rows: usize = 50_000, in 1..=10_000_000;
        /// Bytes that may wait for the next transaction; beyond, requests are refused with `overloaded`.
        queue_bytes: usize = 67_108_864, in 65_536..=17_179_869_184;
        /// Size of SQLite's write-ahead log from which on it is emptied as soon as no reader needs it.
        wal_bytes: u64 = 67_108_864, in 65_536..=17_179_869_184;
        /// Seconds that an ended session's history and the memory of who left are kept.
        ended_s: u64 = 2_592_000, in 0..=3_153_600_000;
        /// The most rows of one kind that one step of house-keeping removes.
        prune_rows: u64 = 1000, in 1..=1_000_000;
    }

    /// The shared store, where `store.kind` is `postgres`.
    "store.postgres" => store_postgres: PostgresSettings {
        /// The database: `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`. A
        /// secret: it is never shown.
        url: Option<Secret> = None;
        /// Seconds to wait at the start for a database that is not there yet.
        connect_within_s: u64 = 60, in 0..=86_400;
        /// Connections for everything but commits, the node's lease and the probe.
        connections: usize = 16, in 1..=1000;
        /// Transactions that commit at the same time, each with a connection and a share of the sessions.
        shards: usize = 4, in 1..=64;
        /// Milliseconds that a call waits for a connection.
        acquire_timeout_ms: u64 = 5000, in 100..=600_000;
        /// Milliseconds that one statement may take.
        statement_timeout_ms: u64 = 5000, in 100..=600_000;
    }

    /// What sessions do by time and by number.
    "sessions" => sessions: SessionSettings {
        /// Seconds after which an invitation lapses.
        invitation_lifetime_s: u64 = 604_800, in 1..=3_153_600_000;
        /// Seconds in which a sender may recall a message.
        recall_window_s: u64 = 86_400, in 0..=3_153_600_000;
        /// The most members of one session.
        max_members: u64 = 100_000, in 1..=10_000_000;
        /// The most open join requests, and the most open invitations, of one session.
        open_requests: usize = 1000, in 1..=100_000;
        /// Seconds that a `client_msg_id` is remembered.
        remember_s: u64 = 86_400, in 86_400..=31_536_000;
        /// The most `client_msg_id`s that one session remembers; the oldest go first.
        remember_ids: usize = 100_000, in 1..=100_000_000;
        /// `request_room_key` of one member in one session, each minute.
        key_requests_per_minute: u32 = 6, in 1..=1_000_000;
        /// Seconds without a command after which a session leaves memory.
        idle_s: u64 = 300, in 1..=86_400;
        /// Commands that may wait for one session; beyond, requests are refused with `overloaded`.
        mailbox: usize = 1024, in 1..=1_000_000;
        /// Threads that sessions live on; 0: one for each two cores.
        threads: usize = 0, in 0..=1024;
    }

    /// The life of room keys.
    "e2ee" => e2ee: E2eeSettings {
        /// Seconds after which a room key is replaced.
        room_key_lifetime_s: u64 = 604_800, in 1..=3_153_600_000;
        /// Encrypted messages after which a room key is replaced.
        room_key_messages: u64 = 100_000, in 1..=1_000_000_000_000;
        /// Seconds in which a rotation has to be over.
        rotation_deadline_s: u64 = 30, in 1..=86_400;
        /// Milliseconds more for each member, and again for each batch sent.
        rotation_deadline_per_member_ms: u64 = 20, in 0..=60_000;
    }

    /// Connected clients.
    "connections" => connections: ConnectionSettings {
        /// Seconds in which `authenticate` must have come.
        authenticate_within_s: u64 = 10, in 1..=3600;
        /// Seconds between pings; without a pong for twice that long, a connection is closed with 4006.
        heartbeat_s: u64 = 30, in 1..=3600;
        /// Seconds in which a client that has something to read must read some of it.
        stall_s: u64 = 20, in 1..=3600;
        /// Bytes that may wait for one connection, beside one reply that is larger by itself; beyond, it is cut off with 4004.
        outbox_bytes: usize = 4_194_304, in 65_536..=1_073_741_824;
        /// The kernel's send buffer of each connection: what it takes is out of the outbox's sight.
        send_buffer_bytes: usize = 131_072, in 4096..=16_777_216;
        /// Bytes of stored events that are read at once for a connection that catches up.
        catch_up_bytes: usize = 262_144, in 4096..=16_777_216;
        /// Unacknowledged inbox events under way to one connection.
        inbox_window: usize = 256, in 1..=10_000;
        /// Milliseconds over which `ack`s are gathered before they are written.
        ack_flush_ms: u64 = 2000, in 1..=60_000;
    }

    /// How much anybody may ask for.
    "limits" => limits: LimitSettings {
        /// The largest frame.
        frame_bytes: usize = 1_048_576, in 512..=67_108_864;
        /// `markdown_text`.
        text_bytes: usize = 65_536, in 1..=67_108_864;
        /// The most rows of one page.
        page: u64 = 1000, in 1..=100_000;
        /// Requests without a reply, per connection; beyond, the node stops reading that connection.
        requests_in_flight: usize = 64, in 1..=65_536;
        /// Requests each second, per user and node.
        requests_per_s: u32 = 5000, in 1..=10_000_000;
        /// Connections of one user to one node.
        connections_per_user: usize = 100, in 1..=1_000_000;
        /// Connections from one address to one node.
        connections_per_address: usize = 20_000, in 1..=10_000_000;
        /// Failed logins each minute, per name; per address ten times that. Successful ones do not count.
        failed_logins_per_minute: u32 = 10, in 1..=1_000_000;
        /// Registrations each minute, per address; 0: no limit.
        registrations_per_minute: u32 = 0, in 0..=1_000_000;
        /// Passwords hashed at once: a flood of logins slows logins, not chat.
        password_hashes_at_once: usize = 2, in 1..=1024;
        /// Logins and the like that may wait for that; beyond, they are refused with `overloaded`.
        password_hashes_waiting: usize = 256, in 1..=100_000;
        /// Sessions of one user.
        sessions_per_user: u64 = 10_000, in 1..=1_000_000;
        /// Unacknowledged inbox events of one user; the oldest go first.
        inbox_per_user: u64 = 10_000, in 256..=1_000_000;
        /// A session's `name`, and a user's `display_name`.
        name_bytes: usize = 256, in 1..=4096;
        /// A session's `description`.
        description_bytes: usize = 4096, in 1..=65_536;
        /// `leave_message`.
        leave_message_bytes: usize = 1024, in 1..=65_536;
        /// `content_type`, and the `reason` of a withheld key.
        word_bytes: usize = 128, in 16..=4096;
        /// Elements of any list in a request.
        list: usize = 4096, in 256..=100_000;
    }

    /// Accounts and their tokens.
    "accounts" => accounts: AccountSettings {
        /// Seconds that a token lives.
        token_lifetime_s: u64 = 2_592_000, in 1..=3_153_600_000;
        /// Live tokens of one user; the oldest go first.
        tokens_per_user: u32 = 100, in 1..=10_000;
        /// argon2id: memory in KiB.
        argon2_memory_kib: u32 = 19_456, in 8..=4_194_304;
        /// argon2id: passes over it.
        argon2_passes: u32 = 2, in 1..=100;
    }

    /// The node among its peers.
    "cluster" => cluster: ClusterSettings {
        /// `local`: there is one node; `redis`: nodes reach each other through Redis, and share a PostgreSQL.
        bus: BusKind = BusKind::Local;
        /// What all nodes know and nobody else, at least 32 bytes: what they tell each other is sealed with it. A
        /// secret: it is never shown.
        secret: Option<Secret> = None;
        /// A file that has the secret instead.
        secret_file: Option<PathBuf> = None;
        /// Seconds to wait at the start for a bus that is not there yet.
        connect_within_s: u64 = 60, in 1..=86_400;
        /// Seconds after which a node that does not renew its row counts as dead.
        lease_s: u64 = 15, in 2..=3600;
        /// Seconds between sweeps, which find what the bus has lost.
        sweep_s: u64 = 30, in 1..=3600;
        /// Milliseconds between sweeps while no node has the bus: nothing else delivers between nodes then.
        cut_off_sweep_ms: u64 = 2000, in 100..=3_600_000;
        /// Milliseconds that a request waits for a session that moves, or for the node that it lives on.
        call_deadline_ms: u64 = 10_000, in 100..=60_000;
        /// Such requests that may wait in all; beyond, they are refused with `overloaded`.
        calls: usize = 100_000, in 1..=10_000_000;
        /// Bytes of such requests that may wait in all; beyond, they are refused with `overloaded`.
        call_bytes: usize = 67_108_864, in 1_048_576..=17_179_869_184;
        /// Such requests that may wait for one node, so that one that does not answer leaves room for the others.
        node_calls: usize = 50_000, in 1..=10_000_000;
        /// Bytes of such requests that may wait for one node.
        node_call_bytes: usize = 33_554_432, in 1_048_576..=17_179_869_184;
        /// Bytes that may wait on each way between the bus and this node's sessions and connections; beyond, messages are
        /// dropped, and sent again or read from the store.
        lane_bytes: usize = 67_108_864, in 41_943_040..=4_294_967_295;
        /// Milliseconds between a session's questions to all nodes who of its members is connected, while it wants keys.
        roll_call_ms: u64 = 3000, in 100..=60_000;
    }

    /// The bus, where `cluster.bus` is `redis`.
    "cluster.redis" => cluster_redis: RedisSettings {
        /// The server, or one of a Redis Cluster: `redis://user:password@host:port`, or `rediss://` for TLS. A secret:
        /// it is never shown.
        url: Option<Secret> = None;
        /// The certificate authority of `rediss://`, PEM; without one, those that browsers trust.
        ca: Option<PathBuf> = None;
        /// Whether it is a Redis Cluster: channels are then spread over its masters (sharded pub/sub).
        sharded: bool = false;
        /// Before the name of each channel, so that clusters can share a Redis.
        prefix: String = "conclave:".to_owned();
        /// Bytes that may wait for each server; beyond, messages are dropped, and whoever misses them reads the store.
        waiting_bytes: usize = 33_554_432, in 65_536..=17_179_869_184;
        /// Milliseconds that Redis may take to answer.
        timeout_ms: u64 = 2000, in 50..=60_000;
    }

    /// Logs.
    "telemetry" => telemetry: TelemetrySettings {
        /// `pretty` or `json`.
        log_format: LogFormat = LogFormat::Pretty;
        /// What is logged, in the syntax of tracing's filters: `info`, `info,conclave::session=debug`.
        log_level: String = "info,actix_server=warn".to_owned();
    }

    /// How the node ends.
    "shutdown" => shutdown: ShutdownSettings {
        /// Seconds after which the node ends whatever is still under way.
        deadline_s: u64 = 20, in 1..=3600;
        /// Milliseconds over which clients are asked to spread their coming back.
        reconnect_spread_ms: u64 = 5000, in 1..=3_600_000;
    }
}

impl LimitSettings {
    /// The sizes that requests are checked for before anybody asks for their session.
    pub fn arguments(&self) -> crate::protocol::Limits {
        crate::protocol::Limits {
            text: self.text_bytes,
            name: self.name_bytes,
            description: self.description_bytes,
            leave_message: self.leave_message_bytes,
            word: self.word_bytes,
            list: self.list,
        }
    }

    /// What a client is told with `authenticate`.
    pub fn public(&self) -> crate::protocol::PublicLimits {
        crate::protocol::PublicLimits {
            frame_bytes: self.frame_bytes,
            requests_in_flight: self.requests_in_flight,
            requests_per_s: self.requests_per_s,
        }
    }
}

impl Config {
    /// How much may wait for sessions that are not here.
    pub fn waiting(&self) -> crate::session::WaitingLimits {
        let cluster = &self.cluster;
        let load = |count, bytes| crate::session::Load { count, bytes };
        crate::session::WaitingLimits {
            all: load(cluster.calls, cluster.call_bytes),
            node: load(cluster.node_calls, cluster.node_call_bytes),
        }
    }

    /// What the rules of sessions depend on.
    pub fn rules(&self) -> crate::session::state::Rules {
        let (sessions, e2ee) = (&self.sessions, &self.e2ee);
        let millis = |secs: u64| i64::try_from(secs.saturating_mul(1000)).unwrap_or(i64::MAX);
        crate::session::state::Rules {
            room_key_lifetime_ms: millis(e2ee.room_key_lifetime_s),
            room_key_messages: e2ee.room_key_messages,
            rotation_deadline_ms: millis(e2ee.rotation_deadline_s),
            rotation_deadline_per_member_ms: i64::try_from(e2ee.rotation_deadline_per_member_ms).unwrap_or(i64::MAX),
            invitation_lifetime_ms: millis(sessions.invitation_lifetime_s),
            recall_window_ms: millis(sessions.recall_window_s),
            max_members: usize::try_from(sessions.max_members).unwrap_or(usize::MAX),
            max_open: sessions.open_requests,
            remembered_msgs: sessions.remember_ids,
            remembered_ms: millis(sessions.remember_s),
            key_requests_per_minute: sessions.key_requests_per_minute,
        }
    }
}
