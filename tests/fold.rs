//! The pure core by properties: random worlds, driven to their end, cut at every event and driven on.

use std::num::NonZeroU64;

use git_agentloop::run::amount::{Count, Seconds};
use git_agentloop::run::event::{
    AgentFinished, AgentStarted, AnswersGiven, BudgetChanged, Checkpointed, Conflicted, CriteriaProposed, Decomposed,
    Event, Fact, IntakeFinished, IntakeStarted, Integrated, IterationFinished, IterationStarted, NeedsInput, Reviewed,
    RunCancelled, RunFinished, RunResumed, RunStarted, Steered, SubagentFailed, SubagentFinished, SubagentStarted,
    Timestamp, Uncommitted, Verified, parse_log,
};
use git_agentloop::run::goal::{AgentChoice, Asking, Budget, Check, Goal, Options, Role, RunId, StopReason};
use git_agentloop::run::id::{Oid, SessionId, SubgoalId};
use git_agentloop::run::work::{CheckResult, Failure, FailureKind, Plan, Review, Subgoal, Usage, Verification};
use git_agentloop::run::{Intake, Run, Snapshot, Step, Word};
use proptest::prelude::*;

/// What agents and checks will do, whoever asks: a function of where the run stands, so that a resumed run meets it too.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a thing that may or may not be so
struct World {
    subgoals: usize,
    /// Attempts of the subgoal that fail, in each iteration.
    failing: Vec<u32>,
    /// The first iteration whose review accepts.
    accepted_at: u32,
    /// The first iteration whose check passes.
    green_at: u32,
    /// Whether the tree changes in every iteration.
    moving: bool,
    /// Whether the planner cannot be reached on the first try of every iteration.
    flaky_planner: bool,
    asks: bool,
    /// Whether workers leave commits of their own.
    isolated: bool,
    /// How many tries the conflict of each subgoal takes, by its number; 0 is none.
    conflicts: Vec<u32>,
    /// The iteration in whose review a person sends guidance and grants an iteration more.
    guided_at: Option<u32>,
    options: Options,
}

fn worlds() -> impl Strategy<Value = World> {
    let numbers = (1..5usize, prop::collection::vec(0..4u32, 4), 1..7u32, 1..7u32, 1..5u32);
    let budget = (1..7u32, 0..3u32, prop::option::of(1..40u64), 0..4u32, prop::option::of(1..200u32));
    let apart = (any::<bool>(), prop::collection::vec(0..3u32, 4), prop::option::of(1..7u32));
    (numbers, budget, any::<[bool; 4]>(), apart).prop_map(
        |(numbers, budget, flags, (isolated, conflicts, guided_at))| {
            let [moving, flaky_planner, asks, checked] = flags;
            let (subgoals, failing, accepted_at, green_at, jobs) = numbers;
            let (max_iterations, max_task_retries, max_agent_calls, patience, seconds) = budget;
            let check = Check { name: "check".into(), argv: vec!["check".into()] };
            let options = Options {
                budget: Budget {
                    max_iterations: Count::near(max_iterations),
                    max_task_retries: Count::near(max_task_retries),
                    max_agent_calls: max_agent_calls.and_then(NonZeroU64::new),
                    patience: Count::near(patience),
                    max_seconds: seconds.map(|seconds| Seconds::try_from(f64::from(seconds)).unwrap()),
                    ..Budget::default()
                },
                agent: AgentChoice { backend: "mock".into(), model: None },
                checks: if checked { vec![check] } else { Vec::new() },
                asking: if asks { Asking::Console } else { Asking::Never },
                jobs: Count::near(jobs),
                max_subgoals: Count::near(32),
                ..Options::default()
            };
            World {
                subgoals,
                failing,
                accepted_at,
                green_at,
                moving,
                flaky_planner,
                asks,
                isolated,
                conflicts,
                guided_at,
                options,
            }
        },
    )
}

/// An object id made of `words`.
fn oid(words: &str) -> Oid {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(words, &mut hasher);
    format!("{:040x}", std::hash::Hasher::finish(&hasher)).parse().unwrap()
}

fn named(id: &str) -> SubgoalId {
    id.parse().unwrap()
}

/// A driver without agents, git or clock: performs each step as the world says.
struct Driver<'a> {
    world: &'a World,
    run: Run,
    log: Vec<Event>,
    session: SessionId,
    /// Workers started and not yet done.
    flight: Vec<String>,
}

impl<'a> Driver<'a> {
    fn start(world: &'a World) -> Self {
        let mut driver = Self::with(world, Vec::new(), "aaaaaa");
        driver.record([RunStarted {
            format: 1,
            run_id: Some(RunId::new("a goal", 7)),
            goal: Goal { text: "a goal".into(), criteria: String::new() },
            options: world.options.clone(),
            base: oid("base"),
            start: oid("start"),
            tree: oid("tree"),
            version: "0".into(),
            host: "host".into(),
            forked_from: None,
        }
        .into()]);
        driver
    }

    fn resume(world: &'a World, log: &[Event]) -> Self {
        let mut driver = Self::with(world, log.to_vec(), "bbbbbb");
        driver.record([
            RunResumed { format: 1, worktree: Word::Known(Uncommitted::Kept), ..RunResumed::default() }.into()
        ]);
        driver
    }

    fn with(world: &'a World, log: Vec<Event>, session: &str) -> Self {
        Self { world, run: Run::replay(&log), log, session: session.parse().unwrap(), flight: Vec::new() }
    }

    fn record(&mut self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            let event = Event {
                seq: self.run.seq + 1,
                ts: self.run.now.plus(0.5),
                session: self.session.clone(),
                iteration: self.run.iteration().map(|iteration| iteration.number),
                fact,
            };
            self.run.apply(&event);
            self.log.push(event);
        }
    }

    fn drive(mut self) -> Self {
        for _ in 0..10_000 {
            let Some(step) = self.run.next_step(self.run.now) else { return self };
            self.perform(step);
        }
        panic!("the run does not end: {:?}", self.run.next_step(self.run.now));
    }

    fn call(&mut self, role: Role, subgoal: Option<&str>) {
        let call = self.run.agent_calls + 1;
        let agent = self.world.options.agent.clone();
        self.record([AgentStarted { call, role: Some(role), agent, subgoal: subgoal.map(named) }.into()]);
    }

    fn answered(&mut self, role: Role, subgoal: Option<&str>, error: Option<Failure>) -> Fact {
        let agent = self.world.options.agent.clone();
        let usage = Usage { tokens_in: 3, tokens_out: 2, ..Usage::default() };
        let call = self.run.agent_calls;
        AgentFinished { call, role: Some(role), agent, subgoal: subgoal.map(named), error, usage, ..Default::default() }
            .into()
    }

    fn perform(&mut self, step: Step) {
        let number = self.run.iteration().map_or(0, |iteration| iteration.number);
        match step {
            Step::Intake(Intake::Criteria) => {
                self.record([IntakeStarted {}.into()]);
                self.call(Role::Criteria, None);
                let finished = self.answered(Role::Criteria, None, None);
                self.record([finished, CriteriaProposed { criteria: "it works".into() }.into()]);
            }
            Step::Intake(Intake::Questions) => {
                self.call(Role::Clarifier, None);
                let finished = self.answered(Role::Clarifier, None, None);
                let goal = self.run.goal.clone();
                let outcome: Fact = if self.world.asks && self.run.intake.questions.is_empty() {
                    NeedsInput { questions: vec!["which?".into()], token: "a-goal-000000.aaaaaa".parse().unwrap() }
                        .into()
                } else {
                    IntakeFinished { goal, ..IntakeFinished::default() }.into()
                };
                self.record([finished, outcome]);
            }
            Step::Intake(Intake::Close) => {
                let goal = self.run.goal.clone();
                self.record([IntakeFinished { goal, ..IntakeFinished::default() }.into()]);
            }
            Step::Await(questions) => {
                self.record([AnswersGiven { answers: questions.iter().map(|_| "this".into()).collect() }.into()]);
            }
            Step::Wait { until, .. } => {
                let wait = until.since(self.run.now);
                assert!(wait > 0.0, "waiting for the past");
                self.run.now = until;
            }
            Step::Plan => self.plan(),
            Step::Work(start) => self.work(&start, number),
            Step::Verify => {
                let ok = number >= self.world.green_at;
                let checks = self.run.options.checks.iter();
                let checks = checks.map(|check| CheckResult { name: check.name.clone(), ok, ..Default::default() });
                let so_far = self.run.integration().map_or("", |so_far| so_far.tree.as_str());
                let tree = if self.world.moving { oid(&format!("tree{number}{so_far}")) } else { oid("tree") };
                let verification = Verification { tree, checks: checks.collect(), ..Verification::default() };
                self.record([Verified { verification }.into()]);
            }
            Step::Integrate(id) => {
                let (commit, onto, position) = self.due(&id);
                self.record([if self.world.conflicts[position % self.world.conflicts.len()] > 0 {
                    let (subgoal, paths) = (named(&id), vec!["a".into()]);
                    Conflicted { subgoal, commit, onto, paths, ..Conflicted::default() }.into()
                } else {
                    Self::merged(&id, commit, onto, None)
                }]);
            }
            Step::Resolve(id) => {
                self.call(Role::Integrator, Some(&id));
                let finished = self.answered(Role::Integrator, Some(&id), None);
                let (commit, onto, position) = self.due(&id);
                let attempt = self.task(&id).conflict.unwrap().attempts + 1;
                let outcome = if attempt < self.world.conflicts[position % self.world.conflicts.len()] {
                    let (paths, error) = (vec!["a".into()], Some("markers".into()));
                    Conflicted { subgoal: named(&id), commit, onto, paths, attempt, error }.into()
                } else {
                    Self::merged(&id, commit, onto, Some(oid("resolution")))
                };
                self.record([finished, outcome]);
            }
            Step::Review => {
                self.hear_a_person(number);
                self.call(Role::Reviewer, None);
                let finished = self.answered(Role::Reviewer, None, None);
                let yes = number >= self.world.accepted_at;
                let review = Review {
                    gates_passed: yes,
                    goal_complete: yes,
                    issues: vec![format!("words {}", self.run.seq)],
                    ..Review::default()
                };
                self.record([finished, Reviewed { review }.into()]);
            }
            Step::Checkpoint { partial } => {
                let verified = self.run.iteration().and_then(|iteration| iteration.verification.clone());
                let tree = verified.map_or_else(|| oid("partial"), |verification| verification.tree);
                let tree = match self.run.integration().filter(|_| partial) {
                    Some(so_far) => so_far.tree.clone(),
                    None => tree,
                };
                let commit = oid(&format!("commit{number}{}", if partial { "p" } else { "" }));
                self.record([Checkpointed { commit, tree, partial, ..Checkpointed::default() }.into()]);
                if !partial {
                    self.record([IterationFinished::default().into()]);
                }
            }
            Step::Stop(reason) => {
                let completed = reason == StopReason::GoalComplete;
                self.record([RunFinished { stop_reason: Some(reason), completed, ..RunFinished::default() }.into()]);
            }
        }
    }

    /// Once, also where the run was cut in between.
    fn hear_a_person(&mut self, number: u32) {
        if self.world.guided_at != Some(number) {
            return;
        }
        if self.run.steering.is_empty() {
            self.record([Steered { text: "mind the API".into() }.into()]);
        }
        let mut budget = self.world.options.budget.clone();
        budget.max_iterations = Count::near(budget.max_iterations.get() + 1);
        if *self.run.budget() != budget {
            self.record([BudgetChanged { budget }.into()]);
        }
    }

    fn plan(&mut self) {
        if self.run.iteration().is_none_or(|iteration| iteration.checkpoint.is_some()) {
            let max_iterations = self.run.budget().max_iterations.get();
            let feedback = self.run.feedback();
            self.record([IterationStarted { max_iterations, feedback }.into()]);
        }
        self.call(Role::Decomposer, None);
        if self.world.flaky_planner && self.run.pauses.is_empty() {
            let mut failure = Failure::new(FailureKind::Overloaded, "busy");
            failure.retry_at = Some(self.run.now.plus(2.0));
            let finished = self.answered(Role::Decomposer, None, Some(failure));
            return self.record([finished]);
        }
        let subgoals =
            (1..=self.world.subgoals).map(|n| Subgoal { id: named(&format!("s{n}")), description: "do".into() });
        let plan = Plan { subgoals: subgoals.collect(), ..Plan::default() };
        let finished = self.answered(Role::Decomposer, None, None);
        self.record([finished, Decomposed { plan }.into()]);
    }

    fn work(&mut self, start: &[String], _number: u32) {
        for id in start {
            let attempt = self.task(id).attempts + 1;
            self.record([SubagentStarted { id: named(id), attempt }.into()]);
            self.call(Role::Subagent, Some(id));
            self.flight.push(id.clone());
            assert!(self.flight.len() <= self.world.options.jobs.get() as usize, "more workers than jobs");
        }
        if !start.is_empty() {
            return;
        }
        let id = self.flight.pop().expect("a driver never waits for nothing");
        let attempt = self.task(&id).attempts + 1;
        let position: usize = id[1..].parse().unwrap();
        let fails = attempt <= self.world.failing[position % self.world.failing.len()];
        let mut finished = self.answered(Role::Subagent, Some(&id), None);
        if let Fact::AgentFinished(data) = &mut finished {
            data.commit = self.world.isolated.then(|| oid(&format!("{id}#{attempt}")));
        }
        let id = named(&id);
        let outcome: Fact = if fails {
            SubagentFailed { id, attempt, error: "no".into(), ..Default::default() }.into()
        } else {
            SubagentFinished { id, attempt, output: "done".into(), ..Default::default() }.into()
        };
        self.record([finished, outcome]);
    }

    /// The commit of `id`, what it is merged into, and the subgoal's number.
    fn due(&self, id: &str) -> (Oid, Oid, usize) {
        let task = self.task(id);
        assert!(task.is_done() || task.output.is_some(), "work that failed is merged");
        assert!(!task.merged, "merged twice");
        let onto = self.run.integration().map_or_else(|| oid("w"), |so_far| so_far.tree.clone());
        (task.commit.unwrap(), onto, id[1..].parse().unwrap())
    }

    fn merged(id: &str, commit: Oid, onto: Oid, resolution: Option<Oid>) -> Fact {
        let tree = oid(&format!("{onto}+{id}"));
        Integrated { commit, tree, subgoal: Some(named(id)), onto: Some(onto), resolution, ..Integrated::default() }
            .into()
    }

    fn task(&self, id: &str) -> git_agentloop::run::Task {
        self.run.iteration().unwrap().tasks.iter().find(|task| task.id == id).unwrap().clone()
    }
}

/// What two ways to the same end must agree on, whatever calls they took.
fn end(run: &Run) -> (Option<StopReason>, Vec<Oid>) {
    let trees = run.iterations.iter().filter_map(|iteration| iteration.checkpoint.as_ref().map(|c| c.tree.clone()));
    (run.ended.as_ref().map(|ended| ended.reason), trees.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_snapshot_is_the_fold_at_every_event(world in worlds()) {
        let log = Driver::start(&world).drive().log;
        let mut run = Run::default();
        for (position, event) in log.iter().enumerate() {
            run.apply(event);
            let message = format!("agentloop: events\n\n{}", run.snapshot().to_trailers());
            prop_assert_eq!(Snapshot::from_message(&message), Some(Run::replay(&log[..=position]).snapshot()));
        }
    }

    #[test]
    fn a_run_cut_at_any_event_reaches_the_same_end(mut world in worlds()) {
        // Calls and seconds that a cut run spends twice are spent: a budget on them may end it earlier, honestly.
        world.options.budget.max_agent_calls = None;
        world.options.budget.max_seconds = None;
        // A stop in the midst counts patience anew, so that resuming a stuck run is not in vain.
        world.options.budget.patience = Count::near(0);
        let whole = Driver::start(&world).drive();
        for cut in 1..whole.log.len() {
            let resumed = Driver::resume(&world, &whole.log[..cut]).drive();
            prop_assert_eq!(end(&resumed.run), end(&whole.run), "cut after event {}", cut);
        }
    }

    #[test]
    fn no_budget_is_overdrawn(world in worlds()) {
        let run = Driver::start(&world).drive().run;
        let budget = run.budget();
        prop_assert!(run.iterations.len() <= budget.max_iterations.get() as usize);
        prop_assert!(budget.max_agent_calls.is_none_or(|limit| run.agent_calls <= limit.get()));
        let reason = run.ended.as_ref().unwrap().reason;
        let last = run.iterations.last();
        prop_assert_eq!(reason == StopReason::GoalComplete, last.is_some_and(|one| one.is_complete() && one.checkpoint.is_some()));
        prop_assert!(!run.touched, "work was left uncommitted");
    }

    #[test]
    fn guidance_is_heard_by_a_plan_or_there_is_none_left(mut world in worlds(), at in 1..7u32) {
        world.guided_at = Some(at);
        let run = Driver::start(&world).drive().run;
        let heard = run.iterations.iter().any(|iteration| iteration.feedback.contains("The user says: mind the API"));
        let was_reviewed = run.iterations.iter().any(|one| one.number == at && one.review.is_some());
        if was_reviewed && !heard {
            let reason = run.ended.as_ref().unwrap().reason;
            let spent = run.budget().max_agent_calls.is_some_and(|limit| run.agent_calls >= limit.get());
            let is_over = reason == StopReason::MaxSeconds || spent;
            prop_assert!(is_over, "{:?} in iteration {}", reason, run.iterations.len());
        }
    }

    #[test]
    fn work_apart_is_merged_in_plan_order_or_counts_as_failed(mut world in worlds()) {
        world.isolated = true;
        world.moving = true;
        world.options.budget.max_agent_calls = None;
        world.options.budget.max_seconds = None;
        world.options.budget.patience = Count::near(0);
        let run = Driver::start(&world).drive().run;
        for iteration in &run.iterations {
            let Some(checkpoint) = &iteration.checkpoint else { continue };
            let done = |number: usize| iteration.tasks[number - 1].is_done();
            let merged = (1..=world.subgoals).filter(|n| done(*n));
            let so_far = merged.fold(None, |onto: Option<Oid>, n| {
                Some(oid(&format!("{}+s{n}", onto.unwrap_or_else(|| oid("w")))))
            });
            // Where all that was to be merged conflicts, the tree is what it was before.
            let met = iteration.tasks.iter().any(|task| task.conflict.is_some());
            let so_far = so_far.or_else(|| met.then(|| oid("w")));
            let number = iteration.number;
            let wanted = oid(&so_far.map_or_else(|| format!("tree{number}"), |so_far| format!("tree{number}{so_far}")));
            prop_assert_eq!(&checkpoint.tree, &wanted);
            for task in &iteration.tasks {
                let position: usize = task.id[1..].parse().unwrap();
                let tries = world.conflicts[position % world.conflicts.len()];
                let could = task.output.is_some() && tries <= world.options.budget.max_task_retries.get() + 1;
                prop_assert_eq!(task.is_done(), could, "{:?}", task);
                prop_assert_eq!(task.failure().is_none(), could, "{:?}", task);
            }
        }
    }

    #[test]
    fn a_cancelled_run_commits_what_is_there_and_ends(world in worlds(), at in 1..200usize) {
        let whole = Driver::start(&world).drive();
        let cut = at.min(whole.log.len() - 1);
        let mut driver = Driver::resume(&world, &whole.log[..cut]);
        driver.record([RunCancelled { by: "SIGINT".into() }.into()]);
        let run = driver.drive().run;
        prop_assert_eq!(run.ended.as_ref().unwrap().reason, StopReason::Cancelled);
        prop_assert!(!run.touched);
    }

    #[test]
    fn the_log_survives_shuffling_doubles_and_foreign_lines(world in worlds(), seed in any::<u64>()) {
        let log = Driver::start(&world).drive().log;
        let mut lines: Vec<String> = log.iter().map(Event::to_line).collect();
        lines.extend(lines.clone().into_iter().step_by(3));
        lines.extend(["", "a person's remark", "{\"seq\":", "{}", "[1,2]", "\u{fffd}\u{0}"].map(String::from));
        let mut random = seed;
        for position in (1..lines.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            lines.swap(position, (random >> 33) as usize % (position + 1));
        }
        let read = parse_log([lines.join("\n").as_str()]);
        prop_assert_eq!(&read, &log);
        prop_assert_eq!(Run::replay(&read), Run::replay(&log));
    }
}

#[test]
fn a_tree_that_changes_is_never_called_stuck() {
    let world = World {
        subgoals: 1,
        failing: vec![0],
        accepted_at: 99,
        green_at: 99,
        moving: true,
        flaky_planner: false,
        asks: false,
        isolated: false,
        conflicts: vec![0],
        guided_at: None,
        options: Options {
            budget: Budget { max_iterations: Count::near(20), patience: Count::near(3), ..Budget::default() },
            jobs: Count::near(1),
            ..Options::default()
        },
    };
    let reason = |world: &World| {
        let run = Driver::start(world).drive().run;
        (run.iterations.len(), run.ended.unwrap().reason)
    };
    assert_eq!(reason(&world), (20, StopReason::MaxIterations));
    assert_eq!(reason(&World { moving: false, ..world }), (3, StopReason::NoProgress));
}

#[test]
fn a_permanent_failure_ends_the_run_and_says_so() {
    let mut run = Driver::start(&World {
        subgoals: 1,
        failing: vec![0],
        accepted_at: 1,
        green_at: 1,
        moving: false,
        flaky_planner: false,
        asks: false,
        isolated: false,
        conflicts: vec![0],
        guided_at: None,
        options: Options::default(),
    })
    .run;
    let failure = Failure::new(FailureKind::NotLoggedIn, "please log in");
    run.apply(&Event {
        seq: run.seq + 1,
        ts: Timestamp(1),
        session: "a".parse().unwrap(),
        iteration: None,
        fact: AgentFinished { role: Some(Role::Criteria), error: Some(failure), ..AgentFinished::default() }.into(),
    });
    assert_eq!(run.next_step(run.now), Some(Step::Stop(StopReason::IntakeAgentError)));
}
