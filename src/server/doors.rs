//! The doors of a node: the addresses that it is bound to, and what listens there.
//!
//! Invariant: an address is bound once, before anything else is done, and stays so until the node ends. While the store
//! is waited for, a porch answers there; who comes between the porch's end and the opening of the doors waits.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::KeepAlive;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};

use super::{Node, Signs, StartError, tls};
use crate::config::{Config, HttpSettings, MAX_WORKERS};
use crate::connection::prepare_socket;
use crate::http;

/// Connections that may wait to be accepted: a crowd that comes back at once is not turned away.
const BACKLOG: u32 = 4096;

/// Has a server listen, with what all of them have in common. Signals are the program's business, not the library's.
macro_rules! listen {
    ($server:expr, $settings:expr, $workers:expr, $keep_alive:expr, $listener:expr, $tls:expr) => {{
        let Listener { key, address, socket } = $listener;
        let server = $server
            .workers($workers)
            .backlog(BACKLOG)
            .keep_alive($keep_alive)
            .client_request_timeout(Duration::from_secs($settings.request_timeout_s))
            .client_disconnect_timeout(Duration::from_secs(5))
            .max_connections(100_000)
            .max_connection_rate(1024)
            .shutdown_timeout(2)
            .disable_signals();
        let bound = match $tls {
            Some(tls) => server.listen_rustls_0_23(socket, tls),
            None => server.listen(socket),
        };
        bound.map(HttpServer::run).map_err(|error| StartError::Listen { key, address, error })
    }};
}

/// What listens at one address, once it is spawned.
pub(super) type Door = Server;

/// Where doors will be.
pub(super) struct Doorway {
    client: Listener,
    operations: Option<Listener>,
    tls: Option<rustls::ServerConfig>,
}

impl Doorway {
    /// Binds the configured addresses.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let client = Listener::bind("http.listen", config.http.listen)?;
        let operations = config.http.operations_listen.map(|at| Listener::bind("http.operations_listen", at));
        Ok(Self { client, operations: operations.transpose()?, tls: tls::load(&config.http_tls)? })
    }

    pub(super) const fn client_address(&self) -> SocketAddr {
        self.client.address
    }

    pub(super) fn operations_address(&self) -> Option<SocketAddr> {
        self.operations.as_ref().map(|listener| listener.address)
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.client.address)
    }

    /// The doors: the clients' one first, then the operators' one if they have their own.
    pub(super) fn open(self, node: &Node) -> Result<Vec<Door>, StartError> {
        let Self { client, operations, tls } = self;
        let mut doors = vec![client_door(client, tls, node, operations.is_none())?];
        if let Some(listener) = operations {
            doors.push(operations_door(listener, &node.config.http, &node.signs)?);
        }
        Ok(doors)
    }

    /// Answers here while there is no node yet: health and metrics where they will be, and `unavailable` to clients.
    pub(super) fn open_porch(&self, settings: &HttpSettings, signs: &Signs) -> Result<Porch, StartError> {
        let porch = |listener: &Listener, tls: Option<rustls::ServerConfig>, with_operations: bool| {
            let signs = signs.clone();
            let server = HttpServer::new(move || {
                App::new().wrap(from_fn(http::count)).configure(|app| signs.share(app)).configure(|routes| {
                    if with_operations {
                        http::operations_routes(routes);
                    }
                    http::porch_routes(routes);
                })
            });
            // A connection that stayed would have to be ended when the doors open.
            listen!(server, settings, 1, KeepAlive::Disabled, listener.again()?, tls)
        };
        let mut servers = vec![porch(&self.client, self.tls.clone(), self.operations.is_none())?];
        if let Some(operations) = &self.operations {
            servers.push(porch(operations, None, true)?);
        }
        let handles = servers.iter().map(Server::handle).collect();
        for server in servers {
            actix_web::rt::spawn(server);
        }
        Ok(Porch { handles })
    }
}

impl Signs {
    /// Gives them to what answers there.
    fn share(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(Arc::clone(&self.metrics))).app_data(web::Data::new(Arc::clone(&self.readiness)));
    }
}

/// What answers while the doors are closed.
pub(super) struct Porch {
    handles: Vec<ServerHandle>,
}

impl Porch {
    /// From now on whoever comes waits for the doors.
    pub(super) async fn close(self) {
        futures_util::future::join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
    }
}

/// The listener for clients; health and metrics too, where they have none of their own.
fn client_door(
    listener: Listener,
    tls: Option<rustls::ServerConfig>,
    node: &Node,
    with_operations: bool,
) -> Result<Door, StartError> {
    let (site, signs) = (node.site.clone(), node.signs.clone());
    let settings = &node.config.http;
    let body_bytes = settings.body_bytes;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(site.clone()))
            .app_data(web::PayloadConfig::new(body_bytes))
            .wrap(from_fn(http::count))
            .configure(|app| signs.share(app))
            .configure(|routes| {
                http::client_routes(routes);
                if with_operations {
                    http::operations_routes(routes);
                }
            })
    })
    .on_connect(prepare_socket(&node.config.connections));
    listen!(server, settings, workers(settings.workers), keep_alive(settings), listener, tls)
}

/// The listener for operators.
fn operations_door(listener: Listener, settings: &HttpSettings, signs: &Signs) -> Result<Door, StartError> {
    let signs = signs.clone();
    let server = HttpServer::new(move || {
        App::new().wrap(from_fn(http::count)).configure(|app| signs.share(app)).configure(http::operations_routes)
    });
    listen!(server, settings, 1, keep_alive(settings), listener, None)
}

/// A bound address.
struct Listener {
    key: &'static str,
    address: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    fn bind(key: &'static str, address: SocketAddr) -> Result<Self, StartError> {
        let listen = || {
            let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG as i32)?;
            let socket = TcpListener::from(socket);
            Ok(Self { key, address: socket.local_addr()?, socket })
        };
        listen().map_err(|error| StartError::Listen { key, address, error })
    }

    /// The same socket once more.
    fn again(&self) -> Result<Self, StartError> {
        let Self { key, address, ref socket } = *self;
        let socket = socket.try_clone().map_err(|error| StartError::Listen { key, address, error })?;
        Ok(Self { key, address, socket })
    }
}

const fn keep_alive(settings: &HttpSettings) -> Duration {
    Duration::from_secs(settings.keep_alive_s)
}

fn workers(setting: usize) -> usize {
    if setting > 0 { setting } else { cores().min(MAX_WORKERS) }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
