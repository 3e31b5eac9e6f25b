//! A connection of a random subject with sockets of several types, created before the random rules apply.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use sockbroker_policy::Policy;
use sockbroker_policy::file::{Directory, read};
use sockbroker_policy::subject::Subject;
use sockbrokerd::config::limits::Limits;
use sockbrokerd::descriptor::Descriptor;
use sockbrokerd::principal::Principal;
use sockbrokerd::rpc::call::RequestParts;
use sockbrokerd::rpc::core::{Core, Message};
use sockbrokerd::rpc::methods::MethodTable;
use sockbrokerd::session::broker::Broker;
use sockbrokerd::session::connection::{Connection, Facts, Framing};

use crate::dice::Dice;
use crate::model::Rules;

/// The user of the broker. It is not a subject of the cases, so the built-in rule does not apply to them.
const OWNER: u32 = 970;

static TABLE: LazyLock<MethodTable> = LazyLock::new(sockbrokerd::handlers::methods);

/// A socket, with the state that the model needs.
#[derive(Debug, Clone)]
pub(crate) struct HeldSocket {
    pub(crate) handle: u64,
    pub(crate) family: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) protocol: &'static str,
    /// The local IP address and port.
    pub(crate) local: Option<(IpAddr, u16)>,
    /// The IP address and port of the peer.
    pub(crate) peer: Option<(IpAddr, u16)>,
}

/// A connection and its sockets.
pub(crate) struct Fixture {
    pub(crate) subject: Subject,
    pub(crate) sockets: Vec<HeldSocket>,
    pub(crate) token: String,
    pub(crate) hostname: String,
    rules: String,
    broker: Arc<Broker>,
    core: Core,
}

#[derive(Debug)]
pub(crate) struct Reply(Value);

impl Reply {
    /// Returns the verb and the rule of a refusal.
    pub(crate) fn denial(&self) -> Option<(String, String)> {
        let data = &self.0["error"]["data"];
        let text =
            |field: &str| data[field].as_str().expect("a denial has rule and grant").to_owned();
        (data["kind"] == "denied").then(|| {
            let verb = text("grant").split('"').nth(1).expect("a grant names its verb").to_owned();
            (verb, text("rule"))
        })
    }

    fn result(&self) -> &Value {
        assert!(self.0.get("result").is_some(), "{self:?}");
        &self.0["result"]
    }
}

struct Numbers;

impl Directory for Numbers {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<u32> {
        None
    }
}

const EVERYTHING: &str = r#"version = 1
[[rule]]
name = "everything"
subject = { everyone = true }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "session", "hostname"]
"#;

impl Fixture {
    pub(crate) async fn new(dice: &mut Dice) -> Self {
        let uid = *dice.one(&[1000, 1001]);
        let subject = Subject::new(uid, uid).in_groups(vec![*dice.one(&[50, 51])]);
        let place =
            *dice.one(&["", "/system.slice/a.service", "/system.slice/b.service/x", "/other"]);
        let subject = subject.in_cgroup(Some(place.to_owned()).filter(|place| !place.is_empty()));
        let limits = Limits { resolver_jobs: 64, resolver_jobs_per_user: 64, ..Limits::default() };
        let broker = Arc::new(Broker::new(policy(EVERYTHING), limits));
        let facts = Facts {
            principal: Principal::Local(subject.clone()),
            framing: Framing::Lsp,
            descriptors: true,
            stream: None,
        };
        let connection = Arc::new(Connection::begin(&broker, facts));
        let core = Core::new(connection, TABLE.clone());
        let (token, hostname) = (String::new(), String::new());
        let mut fixture = Self {
            subject,
            sockets: Vec::new(),
            token,
            hostname,
            rules: String::new(),
            broker,
            core,
        };
        fixture.fill().await;
        fixture
    }

    /// Applies rules, unless they apply already.
    pub(crate) fn rule(&mut self, rules: &Rules) {
        let text = rules.text();
        if text != self.rules {
            let next = self.broker.policy.generation() + 1;
            self.broker.policy.replace(policy(&text), next);
            self.rules = text;
        }
    }

    /// Calls a method and waits for the answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        params: &Value,
        descriptor: Option<OwnedFd>,
    ) -> Reply {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let user = self.core.connection().user();
        let passed = descriptor.map(|descriptor| Descriptor::of_client(descriptor, user));
        let descriptors = passed.into_iter().collect();
        let parts = RequestParts { descriptors, ..RequestParts::default() };
        let message = Message { json: request.to_string().into(), parts };
        let answer = match self.core.receive(message) {
            Some(answer) => answer,
            None => poll_fn(|context| self.core.poll_ended(context)).await.unwrap(),
        };
        Reply(serde_json::from_slice(&answer.json).unwrap())
    }

    async fn get(&mut self, method: &str, params: Value) -> Value {
        self.call(method, &params, None).await.result().clone()
    }

    async fn fill(&mut self) {
        let opened = self.get("session.open", json!({})).await;
        opened["token"].as_str().unwrap().clone_into(&mut self.token);
        let hostname = self.get("socket.gethostname", json!({})).await;
        hostname.as_str().unwrap().clone_into(&mut self.hostname);
        // No call waits: the sockets are non-blocking.
        self.get("socket.setdefaulttimeout", json!([0])).await;
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = self.get("socket.create_server", json!([["127.0.0.1", 0]])).await;
        let address = self.get("socket.getsockname", json!([listener["handle"]])).await;
        let port = u16::try_from(address[1].as_u64().unwrap()).unwrap();
        self.hold(&listener, "AF_INET", "SOCK_STREAM", "IPPROTO_TCP", Some((here, port)), None);
        let client = self.get("socket.socket", json!({ "timeout": 5 })).await;
        self.get("socket.connect", json!([client["handle"], address])).await;
        self.get("socket.settimeout", json!([client["handle"], 0])).await;
        let own = self.get("socket.getsockname", json!([client["handle"]])).await;
        let own = u16::try_from(own[1].as_u64().unwrap()).unwrap();
        let (local, peer) = (Some((here, own)), Some((here, port)));
        self.hold(&client, "AF_INET", "SOCK_STREAM", "IPPROTO_TCP", local, peer);
        let udp = self.get("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).await;
        self.get("socket.bind", json!([udp["handle"], ["127.0.0.1", 0]])).await;
        let own = self.get("socket.getsockname", json!([udp["handle"]])).await;
        let own = u16::try_from(own[1].as_u64().unwrap()).unwrap();
        self.hold(&udp, "AF_INET", "SOCK_DGRAM", "IPPROTO_UDP", Some((here, own)), None);
        let six = self.get("socket.socket", json!(["AF_INET6", "SOCK_DGRAM"])).await;
        let nowhere = Some((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
        self.hold(&six, "AF_INET6", "SOCK_DGRAM", "IPPROTO_UDP", nowhere, None);
        let pair = self.get("socket.socketpair", json!({})).await;
        self.hold(&pair[0], "AF_UNIX", "SOCK_STREAM", "", None, None);
        let netlink = self.get("socket.socket", json!(["AF_NETLINK", "SOCK_RAW", 0])).await;
        self.hold(&netlink, "AF_NETLINK", "SOCK_RAW", "NETLINK_ROUTE", None, None);
    }

    /// Closes the sockets that a call has created.
    pub(crate) async fn close_created(&mut self, reply: &Reply) {
        let made = match &reply.0["result"] {
            Value::Array(made) => made.clone(),
            made => vec![made.clone()],
        };
        for handle in made.iter().filter(|made| made.get("local").is_none()) {
            if let Some(handle) = handle.get("handle") {
                self.call("socket.close", &json!([handle]), None).await;
            }
        }
    }

    fn hold(
        &mut self,
        made: &Value,
        family: &'static str,
        kind: &'static str,
        protocol: &'static str,
        local: Option<(IpAddr, u16)>,
        peer: Option<(IpAddr, u16)>,
    ) {
        let handle = made["handle"].as_u64().unwrap();
        self.sockets.push(HeldSocket { handle, family, kind, protocol, local, peer });
    }
}

/// Returns a descriptor of the client, a Unix stream socket.
pub(crate) fn descriptor() -> OwnedFd {
    UnixStream::pair().unwrap().0.into()
}

fn policy(text: &str) -> Policy {
    let content = read("policy.toml", text, &Numbers).unwrap();
    Policy::new(OWNER, content.rules.into_iter().map(|(rule, _)| rule).collect(), false)
}
