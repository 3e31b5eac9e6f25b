//! Runs the server in the test process, with additional methods for tests.

use std::future::Ready;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sockbroker_policy::Policy;
use sockbroker_sys::process::effective_uid;
use sockbroker_test_support::{Folder, HANG, LspClient};
use sockbrokerd::config::limits::Limits;
use sockbrokerd::error::OpResult;
use sockbrokerd::rpc::methods::MethodTableBuilder;
use sockbrokerd::session::broker::Broker;
use sockbrokerd::transport::server::{Server, Source};
use sockbrokerd::transport::shutdown::ShutdownSwitch;
use tokio::net::UnixListener;

/// A server on its own thread. Dropping it stops the server.
#[derive(Debug)]
pub(crate) struct InProcess {
    folder: Folder,
    switch: Option<ShutdownSwitch>,
    thread: Option<JoinHandle<()>>,
    /// The number of calls of `test_arrive` that have started.
    pub(crate) arrived: Arc<AtomicU64>,
    /// The number of these calls that started out of order.
    pub(crate) misplaced: Arc<AtomicU64>,
}

impl InProcess {
    /// Starts a server with these limits.
    pub(crate) fn start(limits: Limits) -> Self {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (arrived, misplaced) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, out_of_order) = (arrived.clone(), misplaced.clone());
        let (switch, signal) = ShutdownSwitch::new();
        let (ready, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let broker = Arc::new(Broker::new(Policy::built_in(effective_uid()), limits));
                let mut methods = sockbrokerd::handlers::builder();
                add_test_methods(&mut methods, counted, out_of_order);
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                Server::new(broker, methods.build(), signal)
                    .listen(Source::Listener(listener))
                    .await;
            });
        });
        wait.recv_timeout(HANG).unwrap();
        Self { folder, switch: Some(switch), thread: Some(thread), arrived, misplaced }
    }

    /// Connects without a client.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.join("socket")).unwrap()
    }

    /// Connects with LSP framing.
    pub(crate) fn lsp(&self) -> LspClient {
        LspClient::over(self.connect())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(switch) = self.switch.take() {
            switch.begin(Duration::ZERO);
        }
        if let Some(thread) = self.thread.take() {
            // The test reports a failure of the server; a panic here would hide it.
            thread.join().ok();
        }
    }
}

/// Methods that panic in several ways, and a method that records when it starts.
fn add_test_methods(
    table: &mut MethodTableBuilder,
    arrived: Arc<AtomicU64>,
    misplaced: Arc<AtomicU64>,
) {
    table.add_untyped("test_panic", |_, _| -> Ready<OpResult<Value>> { panic!("at once") });
    table.add_untyped("test_panic_before_waiting", |_, _| async { panic!("before any wait") });
    table.add_untyped("test_panic_after_waiting", |_, _| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        panic!("after a wait")
    });
    table.add_untyped("test_panic_elsewhere", |_, _| async {
        let failed = tokio::task::spawn_blocking(|| panic!("on another thread")).await;
        std::panic::resume_unwind(failed.map(drop).unwrap_err().into_panic())
    });
    table.add_untyped("test_arrive", move |_, params| {
        let (arrived, misplaced) = (arrived.clone(), misplaced.clone());
        async move {
            let [number]: [u64; 1] = serde_json::from_str(params.unwrap().get()).unwrap();
            if arrived.fetch_add(1, Ordering::SeqCst) != number {
                misplaced.fetch_add(1, Ordering::SeqCst);
            }
            // Every second call waits, so that answers overtake each other.
            if number.is_multiple_of(2) {
                tokio::time::sleep(Duration::from_millis(number % 7)).await;
            }
            Ok(number.into())
        }
    });
}
