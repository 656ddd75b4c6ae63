//! Change that a write made to an object, as far as a rule needs it. A new kind gets a variant and a line here.

use jiff::Timestamp;
use serde_json::Value;

use crate::event::{Event, text_at, time};
use crate::plan::{Phase, Plan};

/// Change of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// A namespace, with the level of its isolation label.
    Namespace { name: String, level: Level },
    /// A namespace was deleted, or is being deleted.
    NamespaceDeleted { name: String },
    /// A pod was created.
    Pod { namespace: String },
    /// The ServiceRecovery of a service of the plan. `None`: deleted.
    Service { name: String, record: Option<Box<Record>> },
    /// A Quarantine. `None`: deleted.
    Quarantine { name: String, quarantine: Option<Box<Quarantine>> },
    /// A person made a Decision about a service of the plan.
    Decision { service: String, action: String, decided_on: String },
    /// A workload.
    Workload { namespace: String, key: String, workload: Box<Workload> },
    /// Any other object in a service's namespace that the plan's account wrote or deleted.
    Restored { namespace: String, key: String },
    /// A NetworkPolicy or a ServiceAccount, which isolation may delete: whether it exists.
    Carried { namespace: String, key: String, there: bool },
    /// The plan, by UID: whether it exists.
    Plan { uid: String, there: bool },
}

/// Content of a ServiceRecovery. Absent fields are `false` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub plan_uid: String,
    /// Spec: the attempt that requests isolation, the level, and the reachable namespaces.
    pub asking: u64,
    pub asked: Option<Level>,
    pub reach: Vec<String>,
    /// Status.
    pub attempt: u64,
    pub stage: String,
    pub recovered: bool,
    pub healthy: bool,
    pub needs_decision: bool,
    pub claimed_at: Option<Timestamp>,
    pub gates: Vec<GateRecord>,
    /// Steps whose intent is written and that have not ended.
    pub running: Vec<String>,
    /// CronJobs and Jobs with the state Resuming, as `cronjobs/ns/name`.
    pub resuming: Vec<String>,
    /// Digest of the question that needs a decision.
    pub asks_person: Option<String>,
    /// Digest that the next Decision without a question refers to.
    pub orders: Option<String>,
    /// Why the service is being isolated again, if it is.
    pub isolating: Option<String>,
    /// When a regression last isolated it.
    pub contained_at: Option<Timestamp>,
    /// Failed gates that a person accepted.
    pub accepted_gates: Vec<String>,
}

impl Record {
    /// Returns whether the service has left the stage `Isolated`.
    pub(crate) fn claimed(&self) -> bool {
        !self.stage.is_empty() && self.stage != "Isolated"
    }

    pub(crate) fn ready(&self) -> bool {
        self.recovered && self.healthy
    }
}

/// Verdict of a gate in a ServiceRecovery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GateRecord {
    pub phase: Phase,
    pub name: String,
    pub passed: bool,
    pub since: Timestamp,
}

/// A Quarantine, with the fields that determine isolation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Quarantine {
    pub claim: Option<Claim>,
    pub held: bool,
    /// Whether it is being deleted.
    pub going: bool,
}

/// A write that took effect, or may have.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub line: usize,
    /// When the API server answered.
    pub completed: Timestamp,
    /// When the API server received the request.
    pub received: Timestamp,
    /// User who wrote: the impersonated user, if any.
    pub user: String,
    pub name: String,
    /// Object: `namespaces/x`, `pods/ns/x`.
    pub object: String,
    /// Whether the write created the object.
    pub created: bool,
    pub change: Change,
}

/// Claim of a Quarantine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub plan_uid: String,
    pub plan: String,
    pub plan_namespace: String,
    pub service: String,
    pub attempt: u64,
}

impl Claim {
    /// Returns whether the claim belongs to this plan and one of its services.
    pub(crate) fn is_of(&self, plan: &Plan) -> bool {
        self.plan == plan.name
            && self.plan_namespace == plan.namespace
            && plan.services.contains_key(&self.service)
    }
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Workload {
    /// Generation of the spec. A deletion has none.
    pub generation: Option<u64>,
    /// Whether its spec starts nothing. `None`: the answer does not show it.
    pub stopped: Option<bool>,
    /// Seal that stopped it, and the recorded state.
    pub seal: Option<String>,
    pub recorded: Option<String>,
}

/// Level of a namespace's isolation label. A tighter level is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Sealed,
    Contained,
    CleanRoom,
    Open,
}

impl Level {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Contained => "contained",
            Self::CleanRoom => "clean-room",
            Self::Open => "open",
        }
    }

    /// Returns the name in the API.
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "Sealed" => Self::Sealed,
            "Contained" => Self::Contained,
            "CleanRoom" => Self::CleanRoom,
            "Open" => Self::Open,
            _ => return None,
        })
    }

    /// Returns whether nothing may enter: sealed or contained.
    pub(crate) const fn is_closed(self) -> bool {
        matches!(self, Self::Sealed | Self::Contained)
    }
}

/// Returns whether a rule uses writes of this kind.
pub(crate) fn matters(event: &Event, plan: &Plan) -> bool {
    let (object, plain) = (&event.object, event.object.subresource.is_empty());
    match (object.group.as_str(), object.resource.as_str()) {
        ("", "namespaces") | ("resurgam.dev", "quarantines") => true,
        ("", "pods") => plain,
        // The deletion of another plan counts too: it may have held a claim.
        ("resurgam.dev", "recoveryplans") => plain && (object.namespace == plan.namespace || event.deletes()),
        ("resurgam.dev", "servicerecoveries" | "decisions") => object.namespace == plan.namespace,
        ("networking.k8s.io", "networkpolicies") | ("", "serviceaccounts") => plain && ours(object, plan),
        _ => {
            let starts_pods = is_workload_group(&object.group) && is_workload(&object.resource);
            ours(object, plan) && (starts_pods || by_account(event, plan))
        }
    }
}

/// Returns whether the plan's account wrote it: such a write belongs to a step, whatever its kind.
fn by_account(event: &Event, plan: &Plan) -> bool {
    plan.account.as_ref() == Some(&event.user)
}

fn is_workload_group(group: &str) -> bool {
    matches!(group, "apps" | "batch" | "")
}

/// Returns whether single reads of this kind must be logged with their answer.
pub(crate) fn is_read_back(event: &Event, plan: &Plan) -> bool {
    let object = &event.object;
    let ours = match (object.group.as_str(), object.resource.as_str()) {
        ("", "namespaces") => plan.service_of(&object.name).is_some(),
        ("resurgam.dev", "quarantines") => true,
        ("resurgam.dev", "servicerecoveries") => object.namespace == plan.namespace,
        _ => false,
    };
    ours && event.verb == "get" && object.subresource.is_empty()
}

fn ours(object: &crate::event::Object, plan: &Plan) -> bool {
    plan.service_of(&object.namespace).is_some()
}

fn is_workload(resource: &str) -> bool {
    let kinds = ["deployments", "statefulsets", "daemonsets", "replicasets", "replicationcontrollers"];
    kinds.contains(&resource) || ["cronjobs", "jobs"].contains(&resource)
}

/// Returns the change of a write, from the resulting object; of a deletion, from its name.
pub(crate) fn change_of(
    event: &Event,
    name: &str,
    created: bool,
    body: &Value,
    plan: &Plan,
) -> Result<Option<Change>, String> {
    let (object, deletes) = (&event.object, event.deletes());
    let expect = |kind: &str| {
        let as_expected = text_at(body, "/kind").is_none_or(|found| found == kind) && body.is_object();
        as_expected.then_some(()).ok_or_else(|| event.no_body())
    };
    let key = || object.display(name);
    let namespace = object.namespace.clone();
    Ok(match object.resource.as_str() {
        "namespaces" if deletes => Some(Change::NamespaceDeleted { name: object.name.clone() }),
        "namespaces" => {
            expect("Namespace")?;
            Some(Change::Namespace { name: name.to_owned(), level: level(body)? })
        }
        "pods" => created.then_some(Change::Pod { namespace }),
        "servicerecoveries" if event.verb == "deletecollection" => {
            return Err(
                "ServiceRecoveries were deleted as a collection: the log does not show which".to_owned()
            );
        }
        "servicerecoveries" => {
            let service = name.strip_prefix(&format!("{}.", plan.name)).unwrap_or_default().to_owned();
            if !plan.services.contains_key(&service) {
                return Ok(None);
            }
            if !deletes {
                expect("ServiceRecovery")?;
            }
            let record = (!deletes).then(|| record(body)).transpose()?.map(Box::new);
            Some(Change::Service { name: service, record })
        }
        "quarantines" => {
            // A finalizer delays the deletion: the answer is then the object being deleted.
            let there = !deletes || text_at(body, "/kind") == Some("Quarantine");
            if there {
                expect("Quarantine")?;
            }
            let quarantine = there.then(|| Box::new(quarantine(body)));
            Some(Change::Quarantine { name: name.to_owned(), quarantine })
        }
        "decisions" if created => {
            expect("Decision")?;
            let spec = |key: &str| text_at(body, &format!("/spec/{key}")).unwrap_or_default().to_owned();
            let ours = spec("plan") == plan.name && plan.services.contains_key(&spec("service"));
            let (action, decided_on) = (spec("action"), spec("decidedOn"));
            ours.then(|| Change::Decision { service: spec("service"), action, decided_on })
        }
        "recoveryplans" if deletes || (object.namespace == plan.namespace && name == plan.name) => {
            let uid = text_at(body, "/metadata/uid").or_else(|| text_at(body, "/details/uid"));
            Some(Change::Plan { uid: uid.unwrap_or_default().to_owned(), there: !deletes })
        }
        // A deletion of a collection does not show its objects, so none is recorded as deleted.
        "networkpolicies" | "serviceaccounts" if event.verb != "deletecollection" => {
            Some(Change::Carried { namespace, key: key(), there: !deletes })
        }
        resource if is_workload(resource) && object.subresource.is_empty() && !deletes => {
            Some(Change::Workload { namespace, key: key(), workload: Box::new(workload(body)) })
        }
        _ if by_account(event, plan) && ours(object, plan) => {
            Some(Change::Restored { namespace, key: key() })
        }
        _ => None,
    })
}

fn level(namespace: &Value) -> Result<Level, String> {
    match text_at(namespace, "/metadata/labels/resurgam.dev~1isolation") {
        None => Ok(Level::Open),
        Some("sealed") => Ok(Level::Sealed),
        Some("contained") => Ok(Level::Contained),
        Some("clean-room") => Ok(Level::CleanRoom),
        Some(other) => Err(format!("unknown isolation '{other}'")),
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn record(body: &Value) -> Result<Record, String> {
    let text = |pointer: &str| text_at(body, pointer).unwrap_or_default().to_owned();
    let holds = |type_: &str| {
        let is = |c: &Value| text_at(c, "/type") == Some(type_) && text_at(c, "/status") == Some("True");
        list(body, "/status/conditions").any(is)
    };
    let named = |state: &str, value: &Value| text_at(value, "/state") == Some(state);
    let resuming = |value: &Value| {
        let at = |pointer: &str| text_at(value, pointer).unwrap_or_default().to_owned();
        format!("{}s/{}/{}", at("/kind").to_lowercase(), at("/namespace"), at("/name"))
    };
    let reach = |pointer| list(body, pointer).filter_map(Value::as_str).map(str::to_owned);
    let claimed_at = text_at(body, "/status/claimedAt").map(time).transpose()?;
    let gates = list(body, "/status/gates").filter_map(said).collect::<Result<_, _>>()?;
    Ok(Record {
        plan_uid: text("/spec/planRef/uid"),
        asking: number(body, "/spec/attempt"),
        asked: text_at(body, "/spec/isolation").and_then(Level::of),
        reach: reach("/spec/reachable").chain(reach("/spec/allowEgress")).collect(),
        attempt: number(body, "/status/attempt"),
        stage: text("/status/stage"),
        recovered: holds("Recovered"),
        healthy: holds("Healthy"),
        needs_decision: holds("NeedsDecision"),
        claimed_at,
        gates,
        running: list(body, "/status/steps")
            .filter(|step| named("Running", step))
            .filter_map(|step| text_at(step, "/name").map(str::to_owned))
            .collect(),
        resuming: list(body, "/status/resumes").filter(|r| named("Resuming", r)).map(resuming).collect(),
        asks_person: text_at(body, "/status/decision/digest").map(str::to_owned),
        orders: text_at(body, "/status/standingOrders/digest").map(str::to_owned),
        isolating: text_at(body, "/status/isolating/reason").map(str::to_owned),
        contained_at: text_at(body, "/status/containedAt").map(time).transpose()?,
        accepted_gates: list(body, "/status/acceptedGates")
            .filter_map(|gate| text_at(gate, "/name").map(str::to_owned))
            .collect(),
    })
}

fn said(gate: &Value) -> Option<Result<GateRecord, String>> {
    let phase = Phase::of(text_at(gate, "/phase")?)?;
    let (name, passed) = (text_at(gate, "/name")?.to_owned(), text_at(gate, "/verdict") == Some("Pass"));
    let since = time(text_at(gate, "/since").unwrap_or_default());
    Some(since.map(|since| GateRecord { phase, name, passed, since }))
}

fn quarantine(body: &Value) -> Quarantine {
    let claim = |claim: &Value| {
        let text = |pointer: &str| text_at(claim, pointer).unwrap_or_default().to_owned();
        Claim {
            plan_uid: text("/planUid"),
            plan: text("/plan"),
            plan_namespace: text("/planNamespace"),
            service: text("/service"),
            attempt: number(claim, "/attempt"),
        }
    };
    Quarantine {
        claim: body.pointer("/status/claimedBy").filter(|c| c.is_object()).map(claim),
        held: text_at(body, "/spec/hold").is_some(),
        going: text_at(body, "/metadata/deletionTimestamp").is_some(),
    }
}

fn workload(body: &Value) -> Workload {
    let note =
        |key: &str| text_at(body, &format!("/metadata/annotations/resurgam.dev~1{key}")).map(str::to_owned);
    let nodes = body.pointer("/spec/template/spec/nodeSelector/resurgam.dev~1nowhere").is_some();
    let replicas = body.pointer("/spec/replicas").and_then(Value::as_i64).map(|n| n == 0);
    let suspended = body.pointer("/spec/suspend").and_then(Value::as_bool);
    Workload {
        generation: body.pointer("/metadata/generation").and_then(Value::as_u64),
        stopped: if nodes { Some(true) } else { replicas.or(suspended) },
        seal: note("seal"),
        recorded: note("replicas"),
    }
}
