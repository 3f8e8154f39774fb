//! What the compiler of the language lets pass and an event does not: names that it has not,
//! values that it cannot have, products that are text without end.

use std::collections::BTreeMap;

use vrl::{
    diagnostic::Span,
    parser::{
        self,
        ast::{
            Assignment, AssignmentTarget, Container, Expr, FunctionCall, Literal, Node, Opcode,
            Predicate, QueryTarget, RootExpr, Unary,
        },
    },
    path::{OwnedSegment, OwnedValuePath, PathPrefix},
    value::{
        Kind,
        kind::{Collection, Field},
    },
};

use super::{
    Finding,
    language::{line_and_column, shown},
    scope,
};
use crate::{
    config::problem::suggestion,
    transform::path::{ATTRIBUTES, OWN, Own},
};

/// Functions whose result is a float: no text can be multiplied with that.
const FLOATS: [&str; 3] = ["float", "parse_float", "to_float"];
/// Functions whose result is a number.
const NUMBERS: [&str; 12] = [
    "abs",
    "ceil",
    "floor",
    "int",
    "length",
    "mod",
    "parse_int",
    "round",
    "strlen",
    "to_int",
    "to_unix_timestamp",
    "haversine",
];

/// Everything that is wrong with a program that compiles and leaves an event of the kind `left`.
pub(super) fn review(text: &str, left: &Kind) -> Vec<Finding> {
    // It has been parsed before.
    let Ok(program) = parser::parse(text) else { return Vec::new() };
    let mut found = Found::default();
    for root in program {
        if let RootExpr::Expr(expression) = root.into_inner() {
            found.walk(expression);
        }
    }
    let mut findings = found.unknown_names();
    findings.extend(found.wrong_values(left));
    findings.extend(found.products());
    findings.sort_by_key(|(span, _)| span.start());
    let at = |span: Span| Some(line_and_column(text, span.start()));
    findings
        .into_iter()
        .map(|(span, text)| Finding { at: at(span), ..Finding::new(text) })
        .collect()
}

/// What a program mentions.
#[derive(Default)]
struct Found {
    /// Places in the event, and whether they are assigned to.
    places: Vec<(Span, PathPrefix, OwnedValuePath, bool)>,
    /// What variables are set to.
    variables: BTreeMap<String, Vec<Option<Expr>>>,
    /// Factors of products.
    products: Vec<(Span, Expr, Expr)>,
}

impl Found {
    /// Goes through an expression. Bounded by the length of the program, which is the user's own.
    fn walk(&mut self, expression: Node<Expr>) {
        let mut open = vec![expression];
        while let Some(expression) = open.pop() {
            let (span, expression) = expression.take();
            match expression {
                Expr::Literal(_) | Expr::Variable(_) | Expr::Break(_) => {}
                Expr::Container(container) => inside(container.into_inner(), &mut open),
                Expr::IfStatement(choice) => {
                    let choice = choice.into_inner();
                    match choice.predicate.into_inner() {
                        Predicate::One(one) => open.push(*one),
                        Predicate::Many(many) => open.extend(many),
                    }
                    open.extend(choice.if_node.into_inner());
                    open.extend(choice.else_node.into_iter().flat_map(|block| block.into_inner()));
                }
                Expr::Op(operation) => {
                    let vrl::parser::ast::Op(left, operator, right) = operation.into_inner();
                    if *operator == Opcode::Mul {
                        self.products.push((span, left.inner().clone(), right.inner().clone()));
                    }
                    open.extend([*left, *right]);
                }
                Expr::Assignment(assignment) => match assignment.into_inner() {
                    Assignment::Single { target, expr, .. } => {
                        self.assigned(target, Some(expr.inner()));
                        open.push(*expr);
                    }
                    Assignment::Infallible { ok, err, expr, .. } => {
                        self.assigned(ok, Some(expr.inner()));
                        self.assigned(err, None);
                        open.push(*expr);
                    }
                },
                Expr::Query(query) => {
                    let query = query.into_inner();
                    let path = query.path.into_inner();
                    match query.target.into_inner() {
                        QueryTarget::External(prefix) => {
                            self.places.push((span, prefix, path, false));
                        }
                        QueryTarget::FunctionCall(call) => self.called(call, &mut open),
                        QueryTarget::Container(container) => inside(container, &mut open),
                        QueryTarget::Internal(_) => {}
                    }
                }
                Expr::FunctionCall(call) => self.called(call.into_inner(), &mut open),
                Expr::Unary(unary) => {
                    let Unary::Not(not) = unary.into_inner();
                    open.push(*not.into_inner().take().1);
                }
                Expr::Abort(abort) => {
                    open.extend(abort.into_inner().message.map(|message| *message));
                }
                Expr::Return(result) => open.push(*result.into_inner().expr),
            }
        }
    }

    fn called(&mut self, call: FunctionCall, open: &mut Vec<Node<Expr>>) {
        open.extend(call.arguments.into_iter().map(|argument| argument.into_inner().expr));
        if let Some(closure) = call.closure {
            let closure = closure.into_inner();
            for name in closure.variables {
                self.variables.entry(name.into_inner().into_inner()).or_default().push(None);
            }
            open.extend(closure.block.into_inner());
        }
    }

    fn assigned(&mut self, target: Node<AssignmentTarget>, value: Option<&Expr>) {
        let (span, target) = target.take();
        let (name, inside) = match target {
            AssignmentTarget::Noop => return,
            AssignmentTarget::External(path) => {
                let (prefix, path) = path.map_or_else(
                    || (PathPrefix::Event, OwnedValuePath::root()),
                    |path| (path.prefix, path.path),
                );
                return self.places.push((span, prefix, path, true));
            }
            AssignmentTarget::Query(query) => match query.target.into_inner() {
                QueryTarget::External(prefix) => {
                    return self.places.push((span, prefix, query.path.into_inner(), true));
                }
                QueryTarget::Internal(name) => (name, !query.path.is_root()),
                QueryTarget::FunctionCall(_) | QueryTarget::Container(_) => return,
            },
            AssignmentTarget::Internal(name, path) => {
                (name, path.is_some_and(|path| !path.is_root()))
            }
        };
        let value = if inside { None } else { value.cloned() };
        self.variables.entry(name.into_inner()).or_default().push(value);
    }

    /// Names at the top of the event that no event has.
    fn unknown_names(&self) -> Vec<(Span, String)> {
        let wrong = |(span, prefix, path, _): &(Span, PathPrefix, OwnedValuePath, bool)| {
            if *prefix == PathPrefix::Metadata {
                return Some((
                    *span,
                    "there is nothing under `%` here; the event is `.`".to_owned(),
                ));
            }
            let name = match path.segments.first()? {
                OwnedSegment::Field(name) => name.to_string(),
                OwnedSegment::Index(_) => return Some((*span, "the event is no list".to_owned())),
            };
            if scope::names().any(|known| known == name) {
                return None;
            }
            let known = suggestion(&name, scope::names());
            let known = match known.strip_prefix("did you mean `") {
                Some(near) => format!("did you mean `.{near}"),
                None => format!("put it below `.data` or `.attributes`, as in `.data.{name}`"),
            };
            Some((*span, format!("`.{name}` is nothing that an event has; {known}")))
        };
        self.places.iter().filter_map(wrong).collect()
    }

    /// Values at the top of the event that no event can have there.
    fn wrong_values(&self, left: &Kind) -> Vec<(Span, String)> {
        let Some(top) = left.as_object() else {
            return vec![(self.last(None), "`.` must stay an object".to_owned())];
        };
        let text = Kind::bytes().or_null().or_undefined();
        let own = OWN.iter().map(|(name, own)| match own {
            Own::Id | Own::Source => (*name, Kind::bytes(), "a string: every event has one"),
            Own::Time => (
                *name,
                Kind::timestamp().or_null().or_undefined(),
                "a timestamp or null (see `parse_timestamp`)",
            ),
            _ => (*name, text.clone(), "a string or null"),
        });
        let object = Kind::object(Collection::any()).or_null().or_undefined();
        let attributes = (ATTRIBUTES, object, "an object");
        let mut wrong = Vec::new();
        for (name, allowed, what) in own.chain([attributes]) {
            let kind =
                top.known().get(&Field::from(name)).cloned().unwrap_or_else(|| top.unknown_kind());
            // Of a value that may be a string as well as a list, nothing is known before it is
            // there.
            let is_known = !(kind.contains_bytes() && kind.contains_array());
            if is_known && allowed.is_superset(&kind).is_err() {
                let text = format!("`.{name}` must be {what}, but may be left as {}", shown(&kind));
                wrong.push((self.last(Some(name)), text));
            }
        }
        let known = |name: &str| scope::names().any(|known| known == name);
        // Names that were set one by one have been found where they stand.
        let set = |name: &str| self.places.iter().any(|(_, _, path, _)| starts_with(path, name));
        for (name, kind) in top.known() {
            let name = name.as_str();
            if !known(name) && !set(name) && !kind.is_undefined() {
                let text = format!(
                    "`.{name}` is nothing that an event has; put it below `.data` or `.attributes`"
                );
                wrong.push((self.last(None), text));
            }
        }
        wrong
    }

    /// Where this, or the event as a whole, was set last; or else where it is mentioned last.
    fn last(&self, name: Option<&str>) -> Span {
        let about = |path: &OwnedValuePath| {
            path.is_root() || name.is_some_and(|name| starts_with(path, name))
        };
        let mut places = self.places.iter().filter(|(_, _, path, _)| about(path));
        let set = places.clone().filter(|(_, _, _, set)| *set).max_by_key(|place| place.0.start());
        set.or_else(|| places.next_back()).map_or(Span::new(0, 0), |(span, ..)| *span)
    }

    /// Products of which one factor may be a text and the other the number of its copies: with
    /// the numbers of strangers this is how a process runs out of memory.
    fn products(&self) -> Vec<(Span, String)> {
        let is_unsafe = |(_, left, right): &&(Span, Expr, Expr)| {
            let (left, right) = (self.factor(left, 8), self.factor(right, 8));
            left.max(right) < Factor::Bounded && left.min(right) < Factor::Number
        };
        let text = "`*` repeats text as often as the other side says; say what is a number, as in \
                    `to_float!(.data.price) * to_float!(.data.count)`";
        self.products.iter().filter(is_unsafe).map(|(span, ..)| (*span, text.to_owned())).collect()
    }

    /// What is known of a factor; variables are followed `depth` times.
    fn factor(&self, factor: &Expr, depth: usize) -> Factor {
        let Some(depth) = depth.checked_sub(1) else { return Factor::Unknown };
        match factor {
            Expr::Literal(literal) => match literal.inner() {
                Literal::Integer(_) | Literal::Float(_) => Factor::Bounded,
                _ => Factor::Unknown,
            },
            Expr::FunctionCall(call) => match call.ident.as_ref().as_ref() {
                name if FLOATS.contains(&name) => Factor::Bounded,
                name if NUMBERS.contains(&name) => Factor::Number,
                _ => Factor::Unknown,
            },
            Expr::Variable(name) => {
                let values = self.variables.get(name.inner().as_ref()).into_iter().flatten();
                let factors = values.map(|value| {
                    value.as_ref().map_or(Factor::Unknown, |value| self.factor(value, depth))
                });
                factors.min().unwrap_or(Factor::Unknown)
            }
            Expr::Container(container) => match container.inner() {
                Container::Group(group) => self.factor(group.0.inner(), depth),
                _ => Factor::Unknown,
            },
            Expr::Op(operation) => {
                let (left, right) =
                    (self.factor(&operation.0, depth), self.factor(&operation.2, depth));
                match operation.1.inner() {
                    Opcode::Sub => Factor::Number,
                    Opcode::Div => Factor::Bounded,
                    Opcode::Err | Opcode::Or => left.min(right),
                    // Numbers stay numbers, though a product of written ones may be large.
                    Opcode::Add | Opcode::Mul => left.min(right).min(Factor::Number),
                    _ => Factor::Unknown,
                }
            }
            _ => Factor::Unknown,
        }
    }
}

/// What a factor is, from the least known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Factor {
    Unknown,
    Number,
    /// A float, which repeats nothing, or a number that the user wrote.
    Bounded,
}

fn starts_with(path: &OwnedValuePath, name: &str) -> bool {
    matches!(path.segments.first(), Some(OwnedSegment::Field(first)) if first.as_str() == name)
}

fn inside(container: Container, open: &mut Vec<Node<Expr>>) {
    match container {
        Container::Group(group) => open.push(group.into_inner().into_inner()),
        Container::Block(block) => open.extend(block.into_inner()),
        Container::Array(items) => open.extend(items.into_inner()),
        Container::Object(members) => open.extend(members.into_inner().into_iter().map(|m| m.1)),
    }
}
